"""Streams through two proxies, one after the other: who resets, dies or is slow ends its own streams, the other side hears
of it, and nobody else does. Frames by hand at both ends."""
import queue
import socket
import time

import pytest

from abuse import PREFACE, frame
from h2_raw import (CANCEL, DATA, EH, ES, GET, HEADERS, INTERNAL, PING, POST, RST, SETTINGS, WINDOW, Door, Ended, Frames,
                    opened, setting, u32)
from meshes import SLOW
from proxies import Proxy

pytestmark = pytest.mark.asan


class App:
    """An application that tells the test each request's frames and does what it is told."""

    def __init__(self):
        self.frames = queue.Queue()  # (connection, kind, flags, stream, payload)

    def __call__(self, c, _number):
        f = Frames(c)
        if f.exactly(len(PREFACE)) != PREFACE:
            return
        c.settimeout(60)
        f.send(frame(SETTINGS, 0, 0, setting(3, 1000)))
        try:
            while True:
                kind, flags, sid, payload = f.read()
                if kind == SETTINGS and not flags & 1:
                    f.send(frame(SETTINGS, 1, 0))
                elif kind == PING and not flags & 1:
                    f.send(frame(PING, 1, 0, payload))
                elif kind in (HEADERS, DATA, RST):
                    self.frames.put((f, kind, flags, sid, payload))
        except (Ended, OSError):
            self.frames.put((f, "end", 0, 0, b""))

    def until(self, *kinds):
        while True:
            got = self.frames.get(timeout=8 * SLOW)
            if got[1] in kinds:
                return got


class Pair:
    def __init__(self):
        self.app = App()
        self.far = Door(inbound=True, handler=self.app)
        self.near = Proxy(self.far.proxy.port)

    def rss(self):
        def of(pid):
            with open("/proc/%d/status" % pid) as f:
                return 1024 * int(next(line for line in f if line.startswith("VmRSS")).split()[1])
        return of(self.near.process.pid) + of(self.far.proxy.process.pid)

    def stop(self):
        """A stream that stayed would hold up the drain."""
        begun = time.monotonic()
        code = self.near.stop()
        self.far.stop()
        assert code == 0 and time.monotonic() - begun < 8 * SLOW


@pytest.fixture(scope="module")
def pair():
    made = Pair()
    yield made
    made.stop()


def heard(c, stream):
    """How the client learns of the end of its stream."""
    try:
        while True:
            kind, flags, sid, payload = c.read()
            if sid == stream and kind == RST:
                return "rst", int.from_bytes(payload, "big")
            if sid == stream and kind in (HEADERS, DATA) and flags & ES:
                return "whole", 0
    except Ended:
        return "end", 0


def begin(pair, state):
    """A stream in that state, seen by both ends: (client's connection, application's, its stream there)."""
    c = opened(pair.near)
    half_local = state == "half-closed-by-client"
    c.send(frame(HEADERS, EH | (ES if half_local else 0), 1, GET if half_local else POST))
    f, _, _, sid, _ = pair.app.until(HEADERS)
    if state == "half-closed-by-server":
        f.send(frame(HEADERS, EH | ES, sid, b"\x88"))
        while c.read()[0] != HEADERS:
            pass
    elif state == "answering":
        f.send(frame(HEADERS, EH, sid, b"\x88"))
        while c.read()[0] != HEADERS:
            pass
    return c, f, sid


@pytest.mark.parametrize("state", ["open", "answering", "half-closed-by-client"])
@pytest.mark.parametrize("how", ["resets", "dies"])
def test_client_leaves(pair, state, how):
    c, f, sid = begin(pair, state)
    if how == "resets":
        c.send(frame(RST, 0, 1, u32(CANCEL)))
    else:
        c.close()
    got = pair.app.until(RST, "end")
    assert got[1] == "end" or (got[3] == sid and int.from_bytes(got[4], "big") == CANCEL), got
    if how == "resets":  # the connection goes on
        c.send(frame(HEADERS, EH | ES, 3, GET))
        f, _, _, sid, _ = pair.app.until(HEADERS)
        f.send(frame(HEADERS, EH | ES, sid, b"\x88"))
        assert heard(c, 3) == ("whole", 0)
    c.close()


@pytest.mark.parametrize("state", ["open", "answering", "half-closed-by-client"])
@pytest.mark.parametrize("how", ["resets", "dies"])
def test_server_leaves(pair, state, how):
    c, f, sid = begin(pair, state)
    if how == "resets":
        f.send(frame(RST, 0, sid, u32(CANCEL)))
    else:
        f.s.shutdown(socket.SHUT_RDWR)
    got = heard(c, 1)
    assert got[0] == "rst" if state == "answering" else got[0] in ("rst", "whole"), got
    if how == "resets" and got[0] == "rst":
        assert got[1] in (CANCEL, INTERNAL), got
    c.send(frame(HEADERS, EH | ES, 3, GET))  # on the same connection of the client
    f, _, _, sid, _ = pair.app.until(HEADERS)
    f.send(frame(HEADERS, EH | ES, sid, b"\x88"))
    assert heard(c, 3) == ("whole", 0)
    c.close()


def test_an_answer_before_the_end_of_the_request(pair):
    c, _, _ = begin(pair, "half-closed-by-server")
    c.send(frame(DATA, ES, 1, b"late"), frame(HEADERS, EH | ES, 3, GET))
    f, _, _, sid, _ = pair.app.until(HEADERS)
    f.send(frame(HEADERS, EH | ES, sid, b"\x88"))
    assert heard(c, 3) == ("whole", 0)
    c.close()


def test_shut_windows_stop_their_writers_and_nobody_else(pair):
    """64 streams whose answers nobody takes, of which a few wait in the proxy and the others at the application; a stream of another
    connection goes on. (gRPC: a slow reader.)"""
    n, size = 64, 16384
    c = opened(pair.near, setting(4, 0))
    rss = pair.rss()
    for i in range(n):
        c.send(frame(HEADERS, EH | ES, 2 * i + 1, GET))
    streams = [(lambda g: (g[0], g[3]))(pair.app.until(HEADERS)) for _ in range(n)]
    sent = 0
    for f, sid in streams:
        f.send(frame(HEADERS, EH, sid, b"\x88"), frame(DATA, 0, sid, bytes(size)))
        sent += size
        if sent + size > 65535 - size:  # the connection's first window: what was taken is given back below
            break
    assert pair.rss() - rss < (16 << 20) * SLOW
    other = opened(pair.near)
    other.send(frame(HEADERS, EH | ES, 1, GET))
    f, _, _, sid, _ = pair.app.until(HEADERS)
    f.send(frame(HEADERS, EH, sid, b"\x88"), frame(DATA, ES, sid, b"quick"))
    assert heard(other, 1) == ("whole", 0)
    c.send(frame(WINDOW, 0, 1, u32(size)))  # one of them opens, and gets its own
    got = 0
    while got < size:
        kind, _, sid, payload = c.read()
        if kind == DATA:
            assert sid == 1
            got += len(payload)
    other.close()
    c.close()
