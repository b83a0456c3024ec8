"""A gRPC server and the calls of its clients, with messages of plain bytes: no protoc is needed. Not a test by itself:
test_grpc.py copies it into its mesh.

    grpc_app.py serve PORT [OPTION=VALUE...]        prints "listening"
    grpc_app.py call HOST:PORT NAME [ARGUMENT...]   makes the calls of that name, prints "fine"
"""
import json
import os
import queue
import sys
import threading
import time
from concurrent import futures

import grpc

MIB = 1 << 20
SIZES = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
CODES = sorted(grpc.StatusCode, key=lambda c: c.value[0])

# ---- server ----

events, happened = {}, threading.Condition()


def tell(key, value):
    with happened:
        events[key] = value
        happened.notify_all()


def field(context, name, default=None):
    return dict(context.invocation_metadata()).get(name, default)


def unary(request, context):
    return request.upper() if len(request) < 100 else request


def size(request, context):
    """Answers with as many bytes as are asked for, and how many it got."""
    return b"%016d" % len(request) + bytes(int(field(context, "x-size", 0)))


def many(request, context):
    n, each = [int(x) for x in request.split()]
    for i in range(n):
        yield (b"%08d" % i).ljust(each, b"x")


def collect(requests, context):
    n = total = 0
    for m in requests:
        n, total = n + 1, total + len(m)
    return b"%d %d" % (n, total)


def chat(requests, context):
    for m in requests:
        yield m


def status(request, context):
    """Ends with the code asked for, after as many messages as asked for."""
    code, messages = [int(x) for x in request.split()]
    for i in range(messages):
        yield b"%d" % i
    context.set_trailing_metadata((("x-why", "code %d" % code), ("x-raw-bin", bytes([0, 255, code]))))
    if code:
        context.abort(CODES[code], "it is %d, \u00e4 100%%" % code)


def left(request, context):
    return json.dumps(context.time_remaining()).encode()


def hang(request, context):
    """Never answers; tells when it was given up."""
    key, over = request.decode(), threading.Event()
    context.add_callback(over.set)
    tell(key, "begun")
    over.wait(30)
    tell(key, "over" if not context.is_active() else "waited in vain")
    if False:
        yield


def seen(request, context):
    """Waits until what is asked for has happened: KEY VALUE."""
    key, value = request.decode().split(" ", 1)
    with happened:
        happened.wait_for(lambda: events.get(key) == value, 10)
        return str(events.get(key)).encode()


def echo_metadata(request, context):
    got = tuple((k, v) for k, v in context.invocation_metadata() if k.startswith("x-"))
    context.send_initial_metadata(got)
    context.set_trailing_metadata(tuple((k.replace("x-", "t-", 1), v) for k, v in got))
    return b"%d" % sum(len(k) + len(v) for k, v in got)


def who(request, context):
    return b"%d %s" % (os.getpid(), context.peer().encode())


def die(request, context):
    os._exit(1)


def serve(port, options):
    uu, us = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
    su, ss = grpc.stream_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
    calls = {"Unary": uu(unary), "Size": uu(size), "Many": us(many), "Collect": su(collect), "Chat": ss(chat),
             "Status": us(status), "Left": uu(left), "Hang": us(hang), "Seen": uu(seen), "Meta": uu(echo_metadata),
             "Who": uu(who), "Die": uu(die)}
    options = [(k, int(v)) for k, v in (o.split("=") for o in options)]
    server = grpc.server(futures.ThreadPoolExecutor(256), options=SIZES + [("grpc.max_metadata_size", 1 << 18)] + options)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", calls),))
    assert server.add_insecure_port("[::]:" + port)
    server.start()
    print("listening", flush=True)
    server.wait_for_termination()


# ---- clients ----

def channel(target, *options, **kw):
    # One connection per channel: grpcio shares connections between channels with the same options.
    own = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_metadata_size", 1 << 18)]
    return grpc.insecure_channel(target, options=SIZES + own + list(options), **kw)


def caller(kind, name):
    return lambda ch: getattr(ch, kind)("/t.T/" + name)


Unary, Size, Left, Seen, Meta, Who, Die = [caller("unary_unary", n) for n in
                                           ("Unary", "Size", "Left", "Seen", "Meta", "Who", "Die")]
Many, Status, Hang = [caller("unary_stream", n) for n in ("Many", "Status", "Hang")]
Collect, Chat = caller("stream_unary", "Collect"), caller("stream_stream", "Chat")


def failed(call, *args, **kw):
    """The error of a call that has to fail."""
    try:
        got = call(*args, **kw)
        if not isinstance(got, bytes):
            list(got)
    except grpc.RpcError as e:
        return e
    raise AssertionError("it worked")


class Talk:
    """A conversation over a stream: say() returns what was answered."""

    def __init__(self, ch, timeout=30, **kw):
        self.out = queue.Queue()
        self.stream = Chat(ch)(iter(self.out.get, None), timeout=timeout, **kw)

    def say(self, message):
        self.out.put(message)
        return next(self.stream)

    def end(self):
        self.out.put(None)
        assert list(self.stream) == [] and self.stream.code() == grpc.StatusCode.OK


def call_unary(ch, target):
    for i in range(200):
        assert Unary(ch)(b"hello %d" % i, timeout=20) == b"HELLO %d" % i


def call_server_streaming(ch, target):
    got = list(Many(ch)(b"2000 100", timeout=20))
    assert [int(m[:8]) for m in got] == list(range(2000)) and all(len(m) == 100 for m in got)
    assert list(Many(ch)(b"0 0", timeout=20)) == []


def call_client_streaming(ch, target):
    assert Collect(ch)((b"x" * 100 for _ in range(2000)), timeout=20) == b"2000 200000"
    assert Collect(ch)(iter([]), timeout=20) == b"0 0"


def call_ping_pong(ch, target):
    talk = Talk(ch)
    for i in range(1000):
        assert talk.say(b"%d" % i) == b"%d" % i
    talk.end()


def call_long_idle(ch, target):
    """Nobody says anything for longer than the mesh's own times for requests, heads and windows would allow."""
    talk = Talk(ch, timeout=60)
    assert talk.say(b"a") == b"a"
    for seconds in (4, 11):
        time.sleep(seconds)
        assert talk.say(b"b") == b"b"
    talk.end()


def call_deadline(ch, target):
    begun = time.monotonic()
    key = b"late%d" % os.getpid()
    assert failed(Hang(ch), key, timeout=0.5).code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - begun < 5
    assert Seen(ch)(key + b" over", timeout=20) == b"over"
    first, second = [json.loads(Left(ch)(b"", timeout=t)) for t in (20, 7)]
    assert 15 < first < 20.5 and 4 < second < 7.5, (first, second)  # the library rounds up what it sends
    assert (json.loads(Left(ch)(b"")) or 1e9) > 1e6, "no deadline out of nowhere"


def call_cancelled_by_the_client(ch, target):
    for key in ("stream1", "stream2"):
        key += str(os.getpid())
        stream = Hang(ch)(key.encode())
        assert Seen(ch)((key + " begun").encode(), timeout=20) == b"begun"
        stream.cancel()
        assert Seen(ch)((key + " over").encode(), timeout=20) == b"over"
        assert stream.code() == grpc.StatusCode.CANCELLED
    key = "gone%d" % os.getpid()  # a client that goes away altogether
    other = channel(target)
    stream = Hang(other)(key.encode())
    assert Seen(ch)((key + " begun").encode(), timeout=20) == b"begun"
    other.close()
    assert Seen(ch)((key + " over").encode(), timeout=20) == b"over"
    talk = Talk(ch)  # in the middle of messages
    assert talk.say(b"x") == b"x"
    talk.stream.cancel()
    talk.out.put(None)
    assert Unary(ch)(b"x", timeout=20) == b"X"


def call_all_codes(ch, target):
    for messages in (0, 3):
        assert [m for m in Status(ch)(b"0 %d" % messages, timeout=20)] == [b"%d" % i for i in range(messages)]
        for code in range(1, 17):
            stream = Status(ch)(b"%d %d" % (code, messages), timeout=20)
            got = []
            try:
                for m in stream:
                    got.append(m)
            except grpc.RpcError as e:
                assert e.code() == CODES[code], (code, e)
                assert e.details() == "it is %d, \u00e4 100%%" % code, e.details()
                trailers = dict(e.trailing_metadata())
                assert trailers["x-why"] == "code %d" % code and trailers["x-raw-bin"] == bytes([0, 255, code])
            assert stream.code() == CODES[code] and len(got) == messages, (code, got)


def meta(ch, fields):
    reply, call = Meta(ch).with_call(b"", metadata=fields, timeout=20)
    first, last = list(call.initial_metadata()), list(call.trailing_metadata())
    for k, v in fields:
        assert (k, v) in first and (k.replace("x-", "t-", 1), v) in last, (k, v[:20])
    assert int(reply) == sum(len(k) + len(v) for k, v in fields)


def call_metadata(ch, target):
    """40 KiB in several fields, there and back twice; binary; doubled names; and a connection that goes on when it is too much."""
    meta(ch, [("x-a", "1"), ("x-a", "2"), ("x-empty", ""), ("x-list", "a, b")])
    meta(ch, [("x-raw-bin", bytes(range(256))), ("x-none-bin", b""), ("x-raw-bin", b"\0"), ("x-b-bin", b"\xff\xfe,")])
    for round in range(3):
        meta(ch, [("x-big%d" % i, chr(97 + round) * 10000) for i in range(4)])
    before = Who(ch)(b"", timeout=20)
    for size, count in ((20000, 1), (14000, 5)):  # over one and a half of the limit the connection ends
        e = failed(Meta(ch), b"", metadata=[("x-big%d" % i, "y" * size) for i in range(count)], timeout=20)
        assert e.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, e
        limit = "WEFT_FIELD_MAX): x-big0" if count == 1 else "WEFT_HEAD_MAX): x-big"
        assert "W4004" in e.details() and limit.replace(")", "") in e.details().replace(")", ""), e
    e = failed(Meta(ch), b"", metadata=[("x-n%d" % i, "y") for i in range(250)], timeout=20)
    assert "WEFT_FIELDS_MAX" in e.details(), e
    assert Who(ch)(b"", timeout=20) == before, "the connection goes on"


def call_sizes(ch, target):
    for n in (0, 1, 4 * MIB):
        for m in (0, 1, 4 * MIB):
            got = Size(ch)(b"z" * n, metadata=(("x-size", str(m)),), timeout=30)
            assert int(got[:16]) == n and len(got) == 16 + m
    assert Unary(ch)(b"", timeout=20) == b""
    assert [len(m) for m in Many(ch)(b"4 %d" % (4 * MIB), timeout=60)] == [4 * MIB] * 4


def call_compressed(ch, target):
    zipped = channel(target, compression=grpc.Compression.Gzip)
    for _ in range(3):
        assert Unary(zipped)(b"a" * MIB, timeout=20) == b"a" * MIB
        assert Collect(zipped)((b"x" * 10000 for _ in range(50)), timeout=20) == b"50 500000"


def call_many_streams(ch, target):
    """100 conversations on one channel; one more client's stream does not read at all meanwhile."""
    slow = Many(ch)(b"200 100000", timeout=60)  # 20 MB
    first = next(slow)
    talks = [Talk(ch) for _ in range(100)]
    for i in range(20):
        for k, talk in enumerate(talks):
            talk.out.put(b"%d of %d" % (i, k))
        for k, talk in enumerate(talks):
            assert next(talk.stream) == b"%d of %d" % (i, k)
    for talk in talks:
        talk.end()
    assert len(first) + sum(len(m) for m in slow) == 20000000


def call_keepalive(ch, target):
    """The server's own opinion of pings (two of them are too many) does not count: they are the proxy's affair."""
    busy = channel(target, ("grpc.keepalive_time_ms", 100), ("grpc.keepalive_timeout_ms", 5000),
                   ("grpc.keepalive_permit_without_calls", 1), ("grpc.http2.max_pings_without_data", 0))
    before = Who(busy)(b"", timeout=20)
    talk = Talk(busy)
    assert talk.say(b"a") == b"a"
    time.sleep(3)
    assert talk.say(b"b") == b"b"
    talk.end()
    time.sleep(1)
    assert Who(busy)(b"", timeout=20).split()[0] == before.split()[0]


def call_connection_age(ch, target):
    """The server sends its connections away every half second."""
    bad, done, stop = [], [0], time.monotonic() + 4

    def work():
        while time.monotonic() < stop:
            try:
                assert Unary(ch)(b"x", timeout=20) == b"X"
                done[0] += 1
                time.sleep(0.005)
            except grpc.RpcError as e:
                bad.append(str(e))

    threads = [threading.Thread(target=work) for _ in range(8)]
    [t.start() for t in threads]
    talk = Talk(ch)
    while time.monotonic() < stop - 2.5:  # it may last as long as the grace does
        assert talk.say(b"y") == b"y"
        time.sleep(0.05)
    talk.end()
    [t.join() for t in threads]
    assert not bad and done[0] > 100, (len(bad), done, bad[:2])


def call_restart(ch, target):
    """One of the servers dies in the middle: its calls end with UNAVAILABLE, and no other; the channel goes on."""
    everyone, talks = {Who(ch)(b"", timeout=20).split()[0] for _ in range(40)}, []
    for i in range(20):
        talk = Talk(ch)
        assert talk.say(b"a") == b"a"
        talks.append(talk)
    assert failed(Die(ch), b"", timeout=20).code() == grpc.StatusCode.UNAVAILABLE
    kept = lost = 0
    for talk in talks:
        try:
            assert talk.say(b"b") == b"b"
            talk.end()
            kept += 1
        except grpc.RpcError as e:
            assert e.code() == grpc.StatusCode.UNAVAILABLE, e
            lost += 1
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            Unary(ch)(b"x", timeout=5, wait_for_ready=True)
            break
        except grpc.RpcError as e:
            assert e.code() == grpc.StatusCode.UNAVAILABLE, e
            time.sleep(0.05)
    else:
        raise AssertionError("no server again")
    print(json.dumps([len(everyone), kept, lost]))


def call_cancel_storm(ch, target):
    """Deadlines that pass by the hundred are a slow server, no attack: what runs beside them goes on."""
    other = channel(target)
    innocent = Talk(other, timeout=60)
    assert innocent.say(b"a") == b"a"
    bad = []

    def work(k):
        for i in range(40):
            e = failed(Hang(ch), b"storm%d" % k, timeout=0.05)
            if e.code() != grpc.StatusCode.DEADLINE_EXCEEDED:
                bad.append(str(e))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(16)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert innocent.say(b"b") == b"b"
    innocent.end()
    assert Unary(ch)(b"x", timeout=20) == b"X"
    assert not bad, (len(bad), bad[0])


def call_statuses(ch, target, *codes):
    """One call for each of these codes, for those who count."""
    for code in codes:
        try:
            list(Status(ch)(b"%d 0" % int(code), timeout=20))
        except grpc.RpcError as e:
            assert e.code() == CODES[int(code)]


def main():
    if sys.argv[1] == "serve":
        return serve(sys.argv[2], sys.argv[3:])
    target, name = sys.argv[2:4]
    ch = channel(target)
    globals()["call_" + name](ch, target, *sys.argv[4:])
    print("fine", flush=True)
    os._exit(0)  # threads that wait for the requests of streams would keep it


main()
