"""What RFC 9113 and RFC 7541 forbid, as frames by hand at both listeners: the error that it says, and where. The cases
that matter most of h2spec (tests/interop/h2spec), and some that it has not."""
import pytest

from abuse import PREFACE
from h2_raw import (CALM, CLOSED, COMPRESSION, CONTINUATION, DATA, EH, ES, FLOW, GET, GOAWAY, HEADERS, PADDED, PING, POST, PRIO,
                    PRIORITY, PROTOCOL, PUSH, RST, SETTINGS, SIZE, WINDOW, Door, Frames, field, frame, opened, outcome,
                    setting, u32)

pytestmark = pytest.mark.asan
PROBE = frame(PING, 0, 0, b"probe  8")
PONG = ("pong", b"probe  8")
OK = ("answer", 0x88)


def ask(block=GET, flags=ES | EH, stream=1):
    return frame(HEADERS, flags, stream, block)


def refused(*more, start=GET, flags=ES | EH):
    return ask(start + b"".join(more), flags)


BODY = ask(POST, EH)

CONNECTION = {  # name: (frames, the code of the GOAWAY behind which the connection ends)
    "data-on-stream-0": (frame(DATA, ES, 0, b"x"), PROTOCOL),
    "data-on-idle": (frame(DATA, ES, 1, b"x"), PROTOCOL),
    "headers-on-stream-0": (ask(stream=0), PROTOCOL),
    "even-id": (ask(stream=2), PROTOCOL),
    "decreasing-id": (ask(stream=5) + ask(stream=3), PROTOCOL),
    "rst-idle": (frame(RST, 0, 1, u32(8)), PROTOCOL),
    "rst-stream-0": (frame(RST, 0, 0, u32(8)), PROTOCOL),
    "rst-length": (BODY + frame(RST, 0, 1, b"\0\0\x08"), SIZE),
    "window-idle": (frame(WINDOW, 0, 1, u32(1)), PROTOCOL),
    "window-0": (frame(WINDOW, 0, 0, u32(0)), PROTOCOL),
    "window-overflow": (frame(WINDOW, 0, 0, u32(0x7fffffff)), FLOW),
    "window-length": (frame(WINDOW, 0, 0, b"\0\0\1"), SIZE),
    "settings-on-stream": (frame(SETTINGS, 0, 1), PROTOCOL),
    "settings-ack-with-payload": (frame(SETTINGS, 1, 0, setting(4, 1)), SIZE),
    "settings-length": (frame(SETTINGS, 0, 0, b"\0\4\0"), SIZE),
    "settings-push-2": (frame(SETTINGS, 0, 0, setting(2, 2)), PROTOCOL),
    "settings-window-max": (frame(SETTINGS, 0, 0, setting(4, 0x80000000)), FLOW),
    "settings-frame-small": (frame(SETTINGS, 0, 0, setting(5, 16383)), PROTOCOL),
    "settings-frame-big": (frame(SETTINGS, 0, 0, setting(5, 1 << 24)), PROTOCOL),
    "settings-window-overflow": (BODY + frame(WINDOW, 0, 1, u32(0x7fffffff - 65535)) +
                                 frame(SETTINGS, 0, 0, setting(4, 0x7fffffff)), FLOW),
    "ping-on-stream": (frame(PING, 0, 1, b"12345678"), PROTOCOL),
    "ping-length": (frame(PING, 0, 0, b"1234567"), SIZE),
    "goaway-on-stream": (frame(GOAWAY, 0, 1, bytes(8)), PROTOCOL),
    "goaway-length": (frame(GOAWAY, 0, 0, bytes(7)), SIZE),
    "push-from-client": (frame(PUSH, EH, 1, u32(2) + GET), PROTOCOL),
    "priority-on-stream-0": (frame(PRIORITY, 0, 0, bytes(5)), PROTOCOL),
    "frame-too-big": (BODY + frame(DATA, 0, 1, bytes(16385)), SIZE),
    "unknown-too-big": (frame(0x20, 0, 0, bytes(16385)), SIZE),
    "data-padding": (BODY + frame(DATA, PADDED, 1, b"\x05abc"), PROTOCOL),
    "data-padding-empty": (BODY + frame(DATA, PADDED, 1), SIZE),
    "headers-padding": (ask(b"\xff" + GET, ES | EH | PADDED), PROTOCOL),
    "headers-priority-short": (ask(b"\0\0", ES | EH | PRIO), SIZE),
    "continuation-alone": (frame(CONTINUATION, EH, 1, GET), PROTOCOL),
    "continuation-after-end": (ask() + frame(CONTINUATION, EH, 1, GET), PROTOCOL),
    "continuation-other-stream": (ask(flags=ES) + frame(CONTINUATION, EH, 3), PROTOCOL),
    "continuation-data-between": (ask(flags=0) + frame(DATA, 0, 1, b"x"), PROTOCOL),
    "continuation-ping-between": (ask(flags=0) + PROBE, PROTOCOL),
    "continuation-unknown-between": (ask(flags=0) + frame(0x20, 0, 0), PROTOCOL),
    "hpack-index-0": (refused(b"\x80"), COMPRESSION),
    "hpack-index-beyond": (refused(b"\xff\x7f"), COMPRESSION),
    "hpack-size-update-late": (refused(b"\x20"), COMPRESSION),
    "hpack-size-update-big": (ask(b"\x3f\xe2\xff\x03" + GET), COMPRESSION),
    "hpack-huffman-eos": (refused(b"\0\x01x\x84\xff\xff\xff\xff"), COMPRESSION),
    "hpack-huffman-padding-long": (refused(b"\0\x01x\x83\xe3\xff\xff"), COMPRESSION),
    "hpack-huffman-padding-zero": (refused(b"\0\x01x\x81\x00"), COMPRESSION),
    "hpack-cut-string": (refused(b"\0\x01x\x09abc"), COMPRESSION),
    "hpack-integer-without-end": (refused(b"\xff" + b"\xff" * 12), COMPRESSION),
    "settings-too-many": (frame(SETTINGS, 0, 0, setting(0x4242, 1) * 33), CALM),
}

STREAM = {  # stream 1 is reset, the connection goes on
    "headers-after-end": (refused(start=POST, flags=EH) + frame(DATA, ES, 1, b"x") + ask(), CLOSED),
    "window-0": (BODY + frame(WINDOW, 0, 1, u32(0)), PROTOCOL),
    "window-overflow": (BODY + frame(WINDOW, 0, 1, u32(0x7fffffff)), FLOW),
    "self-dependency": (ask(u32(1) + b"\xff" + GET, ES | EH | PRIO), PROTOCOL),
    "priority-self-dependency": (BODY + frame(PRIORITY, 0, 1, u32(1) + b"\0"), PROTOCOL),
    "priority-length": (BODY + frame(PRIORITY, 0, 1, bytes(4)), SIZE),
    "length-too-small": (refused(field(b"content-length", b"1"), start=POST, flags=EH) + frame(DATA, ES, 1, b"xx"), PROTOCOL),
    "length-too-big": (refused(field(b"content-length", b"5"), start=POST, flags=EH) + frame(DATA, ES, 1, b"xx"), PROTOCOL),
    "length-and-empty-end": (refused(field(b"content-length", b"5"), start=POST, flags=EH) + frame(DATA, ES, 1), PROTOCOL),
    "length-and-no-content": (refused(field(b"content-length", b"5"), start=POST), PROTOCOL),
    "length-twice": (refused(field(b"content-length", b"1"), field(b"content-length", b"2"), start=POST), PROTOCOL),
    "trailers-without-end": (BODY + ask(field(b"x", b"1"), EH), PROTOCOL),
    "trailers-with-pseudo": (BODY + ask(field(b":path", b"/")), PROTOCOL),
    "no-method": (ask(b"\x86\x84" + GET[3:]), PROTOCOL),
    "no-scheme": (ask(b"\x82\x84" + GET[3:]), PROTOCOL),
    "no-path": (ask(b"\x82\x86" + GET[3:]), PROTOCOL),
    "empty-path": (ask(b"\x82\x86\x04\x00" + GET[3:]), PROTOCOL),
    "method-twice": (ask(b"\x82" + GET), PROTOCOL),
    "path-twice": (ask(b"\x84" + GET), PROTOCOL),
    "scheme-twice": (ask(b"\x87" + GET), PROTOCOL),
    "status-in-request": (ask(b"\x88" + GET), PROTOCOL),
    "unknown-pseudo": (ask(field(b":test", b"x") + GET), PROTOCOL),
    "late-pseudo": (ask(b"\x82\x86" + field(b"x", b"1") + b"\x84" + GET[3:]), PROTOCOL),
    "upper-case": (refused(field(b"X-Up", b"1")), PROTOCOL),
    "name-empty": (refused(field(b"", b"1")), PROTOCOL),
    "name-blank": (refused(field(b"a b", b"1")), PROTOCOL),
    "name-colon": (refused(field(b"a:b", b"1")), PROTOCOL),
    "value-crlf": (refused(field(b"x", b"a\r\nhost: b")), PROTOCOL),
    "value-nul": (refused(field(b"x", b"a\0b")), PROTOCOL),
    "value-blank-first": (refused(field(b"x", b" a")), PROTOCOL),
    "path-crlf": (ask(b"\x82\x86\x04\x05/ \r\nx" + GET[3:]), PROTOCOL),
    "connection": (refused(field(b"connection", b"close")), PROTOCOL),
    "keep-alive": (refused(field(b"keep-alive", b"1")), PROTOCOL),
    "proxy-connection": (refused(field(b"proxy-connection", b"close")), PROTOCOL),
    "transfer-encoding": (refused(field(b"transfer-encoding", b"chunked"), start=POST, flags=EH), PROTOCOL),
    "upgrade": (refused(field(b"upgrade", b"h2c")), PROTOCOL),
    "te-gzip": (refused(field(b"te", b"gzip")), PROTOCOL),
}

FINE = {  # stream 1 is answered
    "plain": ask(),
    "padded": ask(b"\x03" + GET + bytes(3), ES | EH | PADDED),
    "priority-fields": ask(u32(3) + b"\xff" + GET, ES | EH | PRIO),
    "continuations": ask(GET[:1], ES) + frame(CONTINUATION, 0, 1, GET[1:2]) + frame(CONTINUATION, EH, 1, GET[2:]),
    "continuation-empty": ask(flags=ES) + frame(CONTINUATION, EH, 1),
    "trailers": BODY + frame(DATA, 0, 1, b"x") + ask(field(b"x", b"1")),
    "unknown-frame": frame(0x20, 0xff, 0, b"abc") + ask(),
    "unknown-setting": frame(SETTINGS, 0, 0, setting(0x4242, 1)) + ask(),
    "padded-data": BODY + frame(DATA, ES | PADDED, 1, b"\x02x\0\0"),
    "reserved-bit": frame(HEADERS, ES | EH, 0x80000001, GET),
    "length-right": refused(field(b"content-length", b"2"), start=POST, flags=EH) + frame(DATA, ES, 1, b"xx"),
    "te-trailers": refused(field(b"te", b"trailers")),
    "priority-on-idle": frame(PRIORITY, 0, 9, u32(1) + b"\0") + ask(),
    "goaway-before-the-end": ask() + frame(GOAWAY, 0, 0, bytes(8)),
    "table-size-4-gib": frame(SETTINGS, 0, 0, setting(1, 0xffffffff)) + ask(),
}


@pytest.fixture(scope="module", params=["outbound", "inbound"])
def door(request):
    made = Door(inbound=request.param == "inbound")
    yield made
    made.is_fine()
    made.stop()


@pytest.mark.parametrize("name", CONNECTION)
def test_connection_error(door, name):
    data, code = CONNECTION[name]
    c = opened(door.proxy)
    c.send(data, PROBE)
    seen = []
    while not seen or seen[-1][0] in ("rst", "answer"):  # of the request before
        seen.append(outcome(c, 1))
    assert seen[-1] == ("goaway", code), seen
    assert outcome(c) == ("end", 0)
    c.close()


@pytest.mark.parametrize("name", STREAM)
def test_stream_error(door, name):
    data, code = STREAM[name]
    c = opened(door.proxy)
    c.send(data)
    assert outcome(c, 1) == ("rst", code)
    c.send(PROBE)
    assert outcome(c) == PONG
    c.send(ask(stream=3))
    assert outcome(c, 3) == OK
    c.close()


@pytest.mark.parametrize("name", FINE)
def test_fine(door, name):
    c = opened(door.proxy)
    c.send(FINE[name])
    assert outcome(c, 1) == OK
    c.close()


@pytest.mark.parametrize("late", ["data", "headers"])
def test_frames_on_a_stream_that_we_ended(door, late):
    """Both sides have ended it: whatever comes is of a closed stream."""
    c = opened(door.proxy)
    c.send(ask())
    assert outcome(c, 1) == OK
    c.send(frame(DATA, ES, 1, b"x") if late == "data" else ask(), PROBE)
    assert outcome(c, 1) == ("goaway", CLOSED)
    c.close()


def test_window_updates_and_resets_on_a_closed_stream_mean_nothing(door):
    c = opened(door.proxy)
    c.send(ask())
    assert outcome(c, 1) == OK
    c.send(frame(WINDOW, 0, 1, u32(1)), frame(RST, 0, 1, u32(8)), frame(PRIORITY, 0, 1, u32(3) + b"\0"), PROBE)
    assert outcome(c) == PONG
    c.close()


def test_ping_is_answered_with_its_bytes_and_an_acknowledgement_is_not(door):
    c = opened(door.proxy)
    c.send(frame(PING, 1, 0, b"not sent"), PROBE)
    assert outcome(c) == PONG
    c.close()


@pytest.mark.parametrize("first", [frame(PING, 0, 0, bytes(8)), frame(SETTINGS, 1, 0), GET * 9])
def test_settings_come_first(door, first):
    c = Frames(door.proxy.connect())
    c.send(PREFACE, first)
    assert outcome(c)[0] == "goaway"
    c.close()
