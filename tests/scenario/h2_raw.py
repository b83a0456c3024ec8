"""HTTP/2 by hand on a weft-proxy started by hand: frames out, frames in, and the application behind. Frames are made with
abuse.py's helpers."""
import select
import socket
import struct
import time

from abuse import PREFACE, frame, literal
from meshes import SLOW
from proxies import Proxy, Server

DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
ES, EH, PADDED, PRIO = 1, 4, 8, 0x20
NO_ERROR, PROTOCOL, INTERNAL, FLOW, TIMEOUT, CLOSED, SIZE, REFUSED, CANCEL, COMPRESSION, CONNECT, CALM = range(12)
GET = b"\x82\x86\x84" + literal(1, b"web")
POST = b"\x83\x86\x84" + literal(1, b"web")


def field(name, value):
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def u32(n):
    return struct.pack(">I", n)


def setting(ident, value):
    return struct.pack(">HI", ident, value)


class Ended(Exception):
    pass


class Frames:
    """One end of a connection. read() gives (type, flags, stream, payload)."""

    def __init__(self, s):
        self.s, self.data = s, b""
        self.s.settimeout(8 * SLOW)

    def exactly(self, n):
        while len(self.data) < n:
            try:
                piece = self.s.recv(65536)
            except ConnectionError:
                piece = b""
            if not piece:
                raise Ended()
            self.data += piece
        out, self.data = self.data[:n], self.data[n:]
        return out

    def read(self):
        head = self.exactly(9)
        n = int.from_bytes(head[:3], "big")
        return head[3], head[4], int.from_bytes(head[5:], "big"), self.exactly(n)

    def send(self, *pieces):
        self.s.sendall(b"".join(pieces))

    def close(self):
        self.s.close()


def opened(proxy, *settings):
    """A client's connection whose SETTINGS have been exchanged."""
    c = Frames(proxy.connect())
    c.send(PREFACE, frame(SETTINGS, 0, 0, b"".join(settings)))
    while c.read()[:2] != (SETTINGS, 1):
        pass
    c.send(frame(SETTINGS, 1, 0))
    return c


def outcome(c, stream=None):
    """What comes of it: ("goaway", code), ("rst", code) of the stream, ("status", ...) once it is answered, "pong", or
    "end". A PING that was sent last says that nothing else came."""
    try:
        while True:
            kind, flags, sid, payload = c.read()
            if kind == GOAWAY and struct.unpack(">I", payload[4:8])[0] != 0:
                return "goaway", struct.unpack(">I", payload[4:8])[0]
            if kind == RST and sid == stream:
                return "rst", struct.unpack(">I", payload)[0]
            if kind == HEADERS and sid == stream:
                return "answer", payload[0]
            if kind == PING and flags == 1:
                return "pong", payload
    except Ended:
        return "end", 0


def serve(c, _number):
    """An application: HTTP/2, answers each request that has ended with 200 and "ok"; nothing for others."""
    f = Frames(c)
    if f.exactly(len(PREFACE)) != PREFACE:
        return
    c.settimeout(60)
    f.send(frame(SETTINGS, 0, 0))
    try:
        while True:
            kind, flags, sid, payload = f.read()
            if kind == SETTINGS and not flags & 1:
                f.send(frame(SETTINGS, 1, 0))
            elif kind == PING and not flags & 1:
                f.send(frame(PING, 1, 0, payload))
            elif kind == DATA and payload:
                f.send(frame(WINDOW, 0, 0, u32(len(payload))))
            if kind in (HEADERS, DATA) and flags & ES:
                f.send(frame(HEADERS, EH, sid, b"\x88"), frame(DATA, ES, sid, b"ok"))
    except (Ended, OSError):
        pass


class Door:
    """A proxy in front of an application; stop() asserts that it lived."""

    def __init__(self, inbound=False, handler=serve, **env):
        self.server = Server(handler)
        self.proxy = Proxy(self.server.port, inbound=inbound, **env)
        self.rss_before = self.rss()

    def rss(self):
        with open("/proc/%d/status" % self.proxy.process.pid) as f:
            return 1024 * int(next(line for line in f if line.startswith("VmRSS")).split()[1])

    def is_fine(self):
        """Another connection's request is answered."""
        c = opened(self.proxy)
        c.send(frame(HEADERS, ES | EH, 1, GET))
        got = outcome(c, 1)
        c.close()
        assert got == ("answer", 0x88), (got, self.proxy.log()[-2000:])

    def said(self, words, seconds=12):
        end = time.monotonic() + seconds * SLOW
        while words not in self.proxy.log():
            assert time.monotonic() < end, (words, self.proxy.log()[-2000:])
            time.sleep(0.01)

    def stop(self):
        code, errors = self.proxy.stop(), self.server.errors
        self.server.close()
        assert code == 0, code
        return errors



def sender(s, pieces):
    """Sends pieces until the other end ends it, and throws away what that says. (bytes sent, whether it was ended)."""
    sent = 0
    try:
        for piece in pieces:
            s.sendall(piece)
            sent += len(piece)
            while select.select([s], [], [], 0)[0]:
                if not s.recv(65536):
                    return sent, True
    except OSError:
        return sent, True
    return sent, False
