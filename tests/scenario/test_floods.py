"""One test for each way to make a peer of HTTP/2 work or hold memory for nothing, by the CVE or the H2 case that names it:
the connection ends and says why, others are served meanwhile, memory stays small, the proxy lives. A client floods both
listeners; an application floods the proxy's client side."""
import socket
import time

import pytest

from abuse import PREFACE, bomb, frame
from h2_raw import (CONTINUATION, DATA, EH, ES, GET, GOAWAY, HEADERS, PADDED, PING, POST, PRIORITY, PUSH, RST, SETTINGS, WINDOW,
                    Door, Ended, Frames, field, opened, sender, serve, setting, u32)
from meshes import SLOW

pytestmark = pytest.mark.asan
RSS_MAX = 24 << 20  # growth: the limits of some connections, and the allocator's arenas
PIECES = 4000


def ask(i, block=GET, flags=ES | EH):
    return frame(HEADERS, flags, 2 * i + 1, block)


def first(one, then):
    """A flood that begins with one piece and goes on with others."""
    return lambda i: one if i == 0 else then


def then_reset(more):
    """A request, left open, and what makes us reset it."""
    return lambda i: ask(i, POST, EH) + more(2 * i + 1)


HUFFMAN = b"\0\x01x\xff\x81\x7e" + b"\x1f" * 16256  # 16,256 + 128 bytes of Huffman code: too many for one field
SERVED = {  # name: (the i-th piece, what runs out)
    "CVE-2023-44487-rapid-reset": (lambda i: ask(i) + frame(RST, 0, 2 * i + 1, u32(8)), "EARLY_RESET"),
    "CVE-2023-44487-reset-of-open-requests": (lambda i: ask(i, POST, EH) + frame(RST, 0, 2 * i + 1, u32(8)), "EARLY_RESET"),
    "CVE-2025-8671-window-overflow": (then_reset(lambda s: frame(WINDOW, 0, s, u32(0x7fffffff))), "EARLY_RESET"),
    "CVE-2025-8671-window-0": (then_reset(lambda s: frame(WINDOW, 0, s, u32(0))), "EARLY_RESET"),
    "CVE-2025-8671-priority-length": (then_reset(lambda s: frame(PRIORITY, 0, s, bytes(4))), "EARLY_RESET|PRIORITY"),
    "CVE-2025-8671-priority-on-itself": (then_reset(lambda s: frame(PRIORITY, 0, s, u32(s) + b"\0")), "EARLY_RESET|PRIORITY"),
    "CVE-2025-8671-headers-half-closed": (lambda i: ask(i) + ask(i), "EARLY_RESET"),
    "CVE-2025-8671-data-half-closed": (lambda i: ask(i) + frame(DATA, 0, 2 * i + 1, b"x"), "EARLY_RESET"),
    "CVE-2019-9514-invalid-requests": (lambda i: ask(i, GET + field(b"UP", b"1")), "EARLY_RESET"),
    "CVE-2019-9514-wrong-lengths": (lambda i: ask(i, POST + field(b"content-length", b"1")), "EARLY_RESET"),
    "CVE-2024-28182-continuation-empty": (first(ask(0, GET, 0), frame(CONTINUATION, 0, 1)), "CONTINUATION"),
    "CVE-2024-27316-continuation-1-byte": (first(ask(0, GET, 0), frame(CONTINUATION, 0, 1, b"\x82")), "CONTINUATION"),
    "CVE-2024-2758-continuation-fields": (first(ask(0, GET, 0), frame(CONTINUATION, 0, 1, field(b"x", b"1") * 2700)),
                                          "CONTINUATION|HUGE_HEAD"),
    "H2-03-continuation-large": (first(ask(0, GET, 0), frame(CONTINUATION, 0, 1, bytes(16384))), "CONTINUATION|HUGE_HEAD"),
    "CVE-2019-9512-ping": (lambda i: frame(PING, 0, 0, b"12345678"), "PING"),
    "CVE-2019-9515-settings": (lambda i: frame(SETTINGS, 0, 0), "SETTINGS"),
    "CVE-2019-9513-priority": (lambda i: frame(PRIORITY, 0, 2 * i + 1, u32(2 * i + 3) + b"\1"), "PRIORITY"),
    "CVE-2016-6580-priority-chain": (lambda i: frame(PRIORITY, 0, 2 * i + 3, u32(2 * i + 1) + b"\1"), "PRIORITY"),
    "CVE-2019-9516-empty-names": (lambda i: ask(i, GET + b"\0\0\0" * 1000), "EARLY_RESET|HUGE_HEAD"),
    "CVE-2019-9518-empty-data": (first(ask(0, POST, EH), frame(DATA, 0, 1)), "EMPTY_DATA"),
    "CVE-2019-9518-padding-only": (first(ask(0, POST, EH), frame(DATA, PADDED, 1, b"\xff" + bytes(255))), None),
    "CVE-2016-6581-hpack-bomb": (lambda i: bomb(2 * i + 1), "HUGE_HEAD"),
    "CVE-2026-49975-http2-bomb": (lambda i: ask(i, GET + b"\x40\x01a\0" + b"\xbe" * 2000), "HUGE_HEAD"),
    "H2-14-cookie-crumbs": (lambda i: ask(i, GET + b"\x0f\x11\x03a=b" * 1000), "HUGE_HEAD"),
    "H2-15-huffman": (lambda i: ask(i, GET + HUFFMAN[:16384 - len(GET)]), None),
    "H2-18-initial-window": (lambda i: frame(SETTINGS, 0, 0, setting(4, 100 + i % 2)), "INITIAL_WINDOW|SETTINGS"),
    "H2-32-goaway": (lambda i: frame(GOAWAY, 0, 0, bytes(8)), "GOAWAY"),
    "unknown-frames": (lambda i: frame(0xfe, 0, 0), "UNKNOWN"),
    "window-updates": (lambda i: frame(WINDOW, 0, 0, u32(1)), "WINDOW_UPDATE"),
}


@pytest.fixture(params=["outbound", "inbound"])
def door(request):
    """One for each test: a log that has said a line often within a second says only how often it would have."""
    made = Door(inbound=request.param == "inbound")
    yield made
    made.stop()


def ends_for(door, before, names):
    end = time.monotonic() + 5 * SLOW
    while True:
        new = door.proxy.log()[before:]
        ended = [line for line in new.splitlines() if "http2 connection is ended" in line]
        if ended or time.monotonic() > end:
            break
        time.sleep(0.01)
    assert ended, new[-2000:]
    if names is not None:
        assert any("over=" + n in line for n in names.split("|") for line in ended), ended


@pytest.mark.parametrize("name", SERVED)
def test_flood(door, name):
    piece, over = SERVED[name]
    c, log, rss = opened(door.proxy), len(door.proxy.log()), door.rss()
    sent, _ = sender(c.s, (piece(i) for i in range(PIECES // 2)))
    door.is_fine()  # the flood's connection may be there still
    more, _ = sender(c.s, (piece(i) for i in range(PIECES // 2, PIECES)))
    if over is not None:
        ends_for(door, log, over)
    c.close()
    grown = door.rss() - rss
    assert grown < RSS_MAX * SLOW and grown < max(10 * (sent + more), 2 << 20) * SLOW, (grown, sent + more)
    door.is_fine()


def test_flood_of_streams_beyond_the_limit(door):
    """H2-16, H2-17: those over the limit are refused, none is forgotten, also before our SETTINGS were acknowledged."""
    c = Frames(door.proxy.connect())
    c.send(PREFACE, frame(SETTINGS, 0, 0), b"".join(ask(i, POST, EH) for i in range(300)))  # 250 may run
    refused = 0
    try:
        while refused < 50:
            kind, _, _, payload = c.read()
            refused += kind == RST and payload == u32(7)
    except Ended:
        pass
    c.close()
    assert refused == 50
    door.is_fine()


def test_flood_unread(door):
    """CVE-2019-9512 and 9515 by who reads nothing: the answers are not kept."""
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    s.settimeout(5 * SLOW)
    s.connect(("127.0.0.1", door.proxy.port))
    log, rss = len(door.proxy.log()), door.rss()
    try:
        s.sendall(PREFACE + frame(SETTINGS, 0, 0))
        for _ in range(500):
            s.sendall(frame(PING, 0, 0, b"12345678") * 100)
    except OSError:
        pass
    ends_for(door, log, "PING")
    assert door.rss() - rss < RSS_MAX * SLOW
    s.close()
    door.is_fine()


# ---- an application floods us (H2-34) ----

def answer(st):
    return frame(HEADERS, EH, st, b"\x88")


CLIENT_SIDE = {  # name: the i-th piece of an application's answer to stream `st`
    "ping": lambda st, i: frame(PING, 0, 0, b"12345678"),
    "settings": lambda st, i: frame(SETTINGS, 0, 0),
    "priority": lambda st, i: frame(PRIORITY, 0, st, u32(0) + b"\1"),
    "empty-data": lambda st, i: answer(st) if i == 0 else frame(DATA, 0, st),
    "continuation": lambda st, i: frame(HEADERS, 0, st, b"\x88") if i == 0 else frame(CONTINUATION, 0, st),
    "hpack-bomb": lambda st, i: frame(HEADERS, EH, st, b"\x88\x40\x01x\x7f\xb9\x16" + b"a" * 3000 + b"\xbe" * 13000),
    "window-updates": lambda st, i: frame(WINDOW, 0, 0, u32(1)),
    "initial-window": lambda st, i: frame(SETTINGS, 0, 0, setting(4, 100 + i % 2)),
    "unknown": lambda st, i: frame(0xfe, 0, 0),
    "interim": lambda st, i: frame(HEADERS, EH, st, b"\x08\x03103"),
    "goaway": lambda st, i: frame(GOAWAY, 0, 0, u32(0x7fffffff) + u32(0)),
    "push": lambda st, i: frame(PUSH, EH, st, u32(2) + GET),
}


def how_it_ended(c, stream):
    """A request's end: "whole" (an answer, ours or not), "rst", or that nothing came."""
    try:
        while True:
            kind, flags, sid, _ = c.read()
            if sid == stream and (kind == RST or (kind in (HEADERS, DATA) and flags & ES)):
                return "rst" if kind == RST else "whole"
    except (Ended, TimeoutError) as e:
        return type(e).__name__


@pytest.mark.parametrize("inbound", [False, True], ids=["outbound", "inbound"])
def test_flood_by_the_application(inbound):
    """The client gets 502 or a reset, not a hang; the next request, of a server that has calmed down, is served."""
    turn = [None]

    def application(c, number):
        flood = turn[0]
        if flood is None:
            return serve(c, number)
        f = Frames(c)
        f.exactly(len(PREFACE))
        f.send(frame(SETTINGS, 0, 0))
        while True:
            kind, _, st, _ = f.read()
            if kind == HEADERS:
                break
        turn[0] = None
        sender(c, (flood(st, i) for i in range(PIECES)))
        try:
            while True:  # until the proxy ends it
                f.read()
        except (Ended, OSError):
            pass

    door = Door(inbound=inbound, handler=application)
    try:
        for name, flood in CLIENT_SIDE.items():
            turn[0] = flood
            c, rss = opened(door.proxy), door.rss()
            begun = time.monotonic()
            c.send(ask(0))
            kind = how_it_ended(c, 1)
            assert kind in ("whole", "rst"), (name, kind, door.proxy.log()[-1500:])
            assert time.monotonic() - begun < 6 * SLOW, name
            c.close()
            assert door.rss() - rss < RSS_MAX * SLOW, name
            turn[0] = None
            door.is_fine()
    finally:
        door.stop()


# ---- who reads nothing, and who hardly sends ----

def big_answers(c, _number):
    """An application that answers with as much as it may send."""
    f = Frames(c)
    f.exactly(len(PREFACE))
    f.send(frame(SETTINGS, 0, 0))
    room, small = 65535, 0
    try:
        while True:
            kind, flags, sid, payload = f.read()
            if kind == SETTINGS and not flags & 1:
                f.send(frame(SETTINGS, 1, 0))
            elif kind == WINDOW and sid == 0:
                room += int.from_bytes(payload, "big")
            elif kind == HEADERS and b"/big" in payload:
                f.send(frame(HEADERS, EH, sid, b"\x88"))
                small = sid
            elif kind == HEADERS:
                f.send(frame(HEADERS, EH, sid, b"\x88"), frame(DATA, ES, sid, b"ok"))
            while small and room >= 16384:
                f.send(frame(DATA, 0, small, bytes(16384)))
                room -= 16384
                if room < 16384:
                    break
    except (Ended, OSError):
        pass


BIG = b"\x82\x86\x04\x04/big" + GET[3:]


@pytest.mark.parametrize("inbound", [False, True], ids=["outbound", "inbound"])
@pytest.mark.parametrize("name", ["CVE-2019-9517-shut-TCP-window", "CVE-2019-9511-shut-window"])
def test_flood_who_reads_nothing(name, inbound):
    """Many large answers that cannot go: bounded, and the connection ends when nothing went for WEFT_STALL_TIMEOUT."""
    door = Door(inbound=inbound, handler=big_answers, WEFT_STALL_TIMEOUT="1s")
    is_tcp = "TCP" in name
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    s.settimeout(10 * SLOW)
    s.connect(("127.0.0.1", door.proxy.port))
    try:
        rss = door.rss()
        s.sendall(PREFACE + frame(SETTINGS, 0, 0, setting(4, 0x7fffffff if is_tcp else 0)) +
                  frame(WINDOW, 0, 0, u32(0x7fff0000 - 65535)) + b"".join(ask(i, BIG) for i in range(60)))
        door.is_fine()
        if not is_tcp:
            door.said("reason=STALLED")
        assert door.rss() - rss < RSS_MAX * SLOW
        door.is_fine()
    finally:
        s.close()
        door.stop()


def test_flood_of_content_that_hardly_comes():
    """H2-10: announced content below WEFT_BODY_RATE_MIN is reset with ENHANCE_YOUR_CALM."""
    door = Door(WEFT_BODY_RATE_MIN=1000)
    c = opened(door.proxy)
    try:
        c.send(ask(0, POST + field(b"content-length", b"50000"), EH), frame(DATA, 0, 1, b"x"))
        while True:
            kind, _, sid, payload = c.read()
            if kind == RST and sid == 1:
                break
        assert payload == u32(11)
        door.is_fine()
    finally:
        c.close()
        door.stop()
