"""Flow control of HTTP/2: receive windows grow with a long path, and only as far as they may.

Frames are made by hand: which windows a peer is given is what is looked at."""
import socket
import struct
import threading
import time

import pytest

from abuse import PREFACE, frame, literal
from proxies import Proxy, Server, read_until

DATA, HEADERS, RST, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
START, CONN_START = 256 * 1024, 1024 * 1024
MIB = 1024 * 1024


class LongPath:
    """A relay of TCP connections that delivers every piece `delay` seconds after it came."""

    def __init__(self, port, delay):
        self.to, self.delay = port, delay
        self.server = Server(self.serve)
        self.port = self.server.port

    def serve(self, c, _):
        with socket.create_connection(("127.0.0.1", self.to)) as s:
            c.settimeout(None)
            back = threading.Thread(target=self.pump, args=(s, c), daemon=True)
            back.start()
            self.pump(c, s)
            back.join()

    def pump(self, a, b):
        pieces, ready = [], threading.Condition()

        def deliver():
            while True:
                with ready:
                    ready.wait_for(lambda: pieces)
                    due, piece = pieces.pop(0)
                time.sleep(max(0, due - time.monotonic()))
                try:
                    b.sendall(piece) if piece else b.shutdown(socket.SHUT_WR)
                except OSError:
                    return
                if not piece:
                    return

        out = threading.Thread(target=deliver, daemon=True)
        out.start()
        piece = b"-"
        while piece:
            try:
                piece = a.recv(256 * 1024)
            except OSError:
                piece = b""
            with ready:
                pieces.append((time.monotonic() + self.delay, piece))
                ready.notify()
        out.join()


class Peer:
    """An HTTP/2 client: frames by hand, windows counted."""

    def __init__(self, port, window):
        self.s = socket.create_connection(("127.0.0.1", port), 30)
        self.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.windows = {0: 65535}
        self.start = 65535
        self.pings = 0
        self.bodies, self.ended, self.data = {}, set(), b""
        self.s.sendall(PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HI", 4, window)))

    def ask(self, stream, path, method=b"\x82", is_end=True):
        block = method + b"\x86" + literal(4, path) + literal(1, b"web")
        self.windows[stream] = self.start
        self.bodies[stream] = []
        self.s.sendall(frame(HEADERS, 5 if is_end else 4, stream, block))

    def turn(self):
        """Handles what one read brings."""
        piece = self.s.recv(MIB)
        assert piece, "the proxy has closed"
        self.data += piece
        while len(self.data) >= 9 and len(self.data) >= 9 + (n := int.from_bytes(self.data[:3], "big")):
            self.take(self.data[3], self.data[4], int.from_bytes(self.data[5:9], "big"), self.data[9:9 + n])
            self.data = self.data[9 + n:]

    def take(self, kind, flags, stream, payload):
        assert kind not in (GOAWAY, RST), (kind, payload)
        if kind == SETTINGS and not flags & 1:
            for at in range(0, len(payload), 6):
                name, value = struct.unpack(">HI", payload[at:at + 6])
                self.start = value if name == 4 else self.start
            self.s.sendall(frame(SETTINGS, 1, 0))
        elif kind == PING and not flags & 1:
            self.pings += 1
            self.s.sendall(frame(PING, 1, 0, payload))
        elif kind == WINDOW_UPDATE:
            self.windows[stream] = self.windows.get(stream, 0) + int.from_bytes(payload, "big")
        elif kind == DATA:
            self.bodies[stream].append(payload)
        if kind in (DATA, HEADERS) and flags & 1:
            self.ended.add(stream)

    def open(self, stream, by):
        self.s.sendall(frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", by)))


def upload(port, size):
    """Sends `size` bytes as the windows allow. Returns the most that could be sent at once, and the peer."""
    peer = Peer(port, 65535)
    while peer.windows[0] < CONN_START:  # SETTINGS, and the connection's window behind them
        peer.turn()
    peer.ask(1, b"/up", method=b"\x83", is_end=False)
    most = {0: 0, 1: 0}
    left, granted = size, dict(peer.windows)
    while left > 0:
        for i in most:
            most[i] = max(most[i], peer.windows[i])
        n = min(left, peer.windows[0], peer.windows[1], 16384)
        if n == 0:
            peer.turn()
            continue
        left -= n
        peer.windows[0] -= n
        peer.windows[1] -= n
        peer.s.sendall(frame(DATA, 1 if left == 0 else 0, 1, b"u" * n))
    while 1 not in peer.ended:
        peer.turn()
    assert granted[1] == START
    return most, peer


def take_all(c, _):
    """An HTTP/2 application: gives back every byte of an upload as it reads it, and answers at its end."""
    data = read_until(c, PREFACE)
    data = data[data.index(PREFACE) + len(PREFACE):]
    c.sendall(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 8 * MIB)) +
              frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 16 * MIB)))
    while True:
        while len(data) >= 9 and len(data) >= 9 + int.from_bytes(data[:3], "big"):
            n, kind, flags, stream = int.from_bytes(data[:3], "big"), data[3], data[4], data[5:9]
            if kind in (SETTINGS, PING) and not flags & 1:
                c.sendall(frame(kind, 1, 0, data[9:9 + n] if kind == PING else b""))
            if kind == DATA and n > 0:
                by = struct.pack(">I", n)
                c.sendall(frame(WINDOW_UPDATE, 0, 0, by) + b"\0\0\4\x08\0" + stream + by)
            if kind == DATA and flags & 1:
                c.sendall(b"\0\0\1\1\4" + stream + b"\x88" + b"\0\0\2\0\1" + stream + b"ok")
            data = data[9 + n:]
        piece = c.recv(MIB)
        if not piece:
            return
        data += piece


@pytest.mark.parametrize("ceiling,grows", [("64Mi", True), ("0", False)])
def test_windows_grow_with_the_path(ceiling, grows):
    app = Server(take_all)
    proxy = Proxy(app.port, WEFT_WINDOW_TOTAL=ceiling)
    path = LongPath(proxy.port, 0.05)
    try:
        most, peer = upload(path.port, 10 * MIB)
        assert b"".join(peer.bodies[1]) == b"ok"
        if grows:
            assert most[1] > START, most
            assert 1 <= peer.pings <= 40
        else:
            assert most[1] <= START and most[0] <= CONN_START and peer.pings == 0, (most, peer.pings)
        assert not app.errors, app.errors
    finally:
        path.server.close()
        app.close()
        assert proxy.stop() == 0
