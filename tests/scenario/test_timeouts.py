"""Every limit of time, at every phase of an exchange, as a client and an application see it. Only codes, order and lower
bounds: a busy machine may take as long as it likes."""
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import h2.config
import h2.connection
import h2.events
import pytest

from linked import Link, Linked, destination, rule
from meshes import SLOW, Answer
from proxies import Server, read_all, read_request, read_until

LONG = 30000


class Setup:
    """A server that follows the test, and one proxy before it."""

    def __init__(self, handler, **limits):
        self.server = Server(handler)
        self.link = Link(destination([rule(**limits)], [self.server.port]))
        self.proxy = Linked(self.link, self.server.port)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        code = self.proxy.stop()
        self.link.close()
        self.server.close()
        assert code == 0

    def connect(self):
        s = socket.create_connection(("127.0.0.1", self.proxy.port), timeout=20 * SLOW)
        return s

    def curl(self, *args):
        done = subprocess.run(["curl", "-sS", "-i", "-m", str(20 * SLOW), *args, self.proxy.url()], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True)
        return done.returncode, Answer(done.stdout)


def silent(c, _):
    """Reads requests, says nothing until the other end goes."""
    read_all(c)


def half(c, _):
    read_request(c)
    c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    read_all(c)


def ok(c, _):
    while True:
        head, body = read_request(c)
        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


LIMITS = {"request_ms": ("W3002", "timeouts.request"), "backend_ms": ("W3003", "timeouts.backendRequest"),
          "idle_ms": ("W3004", "timeout.linkerd.io/idle"), "head_ms": ("W3009", "timeout.weft.io/response-headers")}


@pytest.mark.asan
@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
def test_before_the_head(limit, version):
    code, name = LIMITS[limit]
    with Setup(silent, **{limit: 150}) as s:
        begun = time.monotonic()
        rc, a = s.curl(version)
        assert rc == 0 and a.status == 504, (rc, a)
        assert time.monotonic() - begun >= 0.15
        assert a.headers["weft-code"] == code
        assert "HTTPRoute/default/web rule 0: %s 150ms" % name in a.headers["proxy-status"]


def test_a_504_keeps_the_connection():
    def handler(c, _):
        while True:
            head, _body = read_request(c)
            if b"GET /slow" in head:
                read_all(c)
                return
            c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    with Setup(handler, request_ms=150) as s, s.connect() as c:
        for path, want in ((b"/slow", b"504"), (b"/", b"200"), (b"/slow", b"504")):
            c.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: web\r\n\r\n")
            head = read_until(c, b"\r\n\r\n")
            assert head.split(b" ")[1] == want, head
            assert b"connection: close" not in head.lower()
            if want == b"200" and not head.endswith(b"ok"):
                read_until(c, b"ok")


@pytest.mark.parametrize("limit", ["request_ms", "backend_ms", "idle_ms"])
def test_in_the_middle_of_an_answer(limit):
    """What came is delivered, then the connection ends before the length that was promised."""
    with Setup(half, **{limit: 150}) as s, s.connect() as c:
        c.sendall(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
        data = read_all(c)
        assert data.startswith(b"HTTP/1.1 200") and data.endswith(b"half")


def test_in_the_middle_of_an_upload():
    with Setup(silent, request_ms=200) as s, s.connect() as c:
        c.sendall(b"PUT / HTTP/1.1\r\nHost: web\r\nContent-Length: 1000\r\n\r\nsome")
        data = read_until(c, b"\r\n\r\n")
        assert data.startswith(b"HTTP/1.1 504") and b"W3002" in data


def test_the_head_limit_begins_when_the_request_has_left():
    def handler(c, _):
        read_request(c)
        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    with Setup(handler, head_ms=2000 * SLOW) as s, s.connect() as c:
        c.sendall(b"PUT / HTTP/1.1\r\nHost: web\r\nContent-Length: 6\r\n\r\n")
        for _ in range(6):
            time.sleep(0.4 * SLOW)
            c.sendall(b"x")
        assert read_until(c, b"\r\n\r\n").startswith(b"HTTP/1.1 200")


def test_bytes_push_the_idle_limit_on():
    def handler(c, _):
        read_request(c)
        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n")
        for _ in range(8):
            time.sleep(0.3 * SLOW)
            c.sendall(b"x")
        read_all(c)
    with Setup(handler, idle_ms=2000 * SLOW) as s:
        rc, a = s.curl()
        assert rc == 0 and a.body == "xxxxxxxx"


def test_a_tunnel_has_no_limit_but_idle():
    def handler(c, _):
        read_request(c)
        c.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        while True:
            data = c.recv(100)
            if not data:
                return
            c.sendall(data)
    with Setup(handler, request_ms=500 * SLOW, backend_ms=500 * SLOW, head_ms=500 * SLOW) as s, s.connect() as c:
        c.sendall(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        assert read_until(c, b"\r\n\r\n").startswith(b"HTTP/1.1 101")
        time.sleep(0.8 * SLOW)
        c.sendall(b"still here")
        assert read_until(c, b"still here")
    with Setup(handler, idle_ms=300) as s, s.connect() as c:
        c.sendall(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        assert read_until(c, b"\r\n\r\n").startswith(b"HTTP/1.1 101")
        try:
            assert read_all(c) == b""
        except ConnectionResetError:
            pass


# ---- gRPC ----

class Greeter(grpc.GenericRpcHandler):
    """Methods without messages' types: bytes in, bytes out. Remembers the metadata it saw."""

    def __init__(self):
        self.seen, self.hold = [], threading.Event()

    def service(self, details):
        self.seen.append(dict(details.invocation_metadata))
        kind = details.method.rsplit("/", 1)[1]
        if kind == "slow":
            return grpc.unary_unary_rpc_method_handler(lambda r, c: (self.hold.wait(60), b"late")[1])
        if kind == "stream":
            return grpc.unary_stream_rpc_method_handler(self.stream)
        return grpc.unary_unary_rpc_method_handler(lambda r, c: ("%.3f" % (c.time_remaining() or -1)).encode())

    def stream(self, _request, _context):
        yield b"one"
        self.hold.wait(60)


class GrpcSetup:
    def __init__(self, **limits):
        self.greeter = Greeter()
        self.server = grpc.server(ThreadPoolExecutor(8), handlers=[self.greeter])
        port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()
        self.link = Link(destination([rule(route="GRPCRoute/default/web", **limits)], [port]))
        self.proxy = Linked(self.link, port)
        self.channel = grpc.insecure_channel("127.0.0.1:%d" % self.proxy.port)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.channel.close()
        self.greeter.hold.set()
        code = self.proxy.stop()
        self.server.stop(None)
        self.link.close()
        assert code == 0

    def call(self, method, timeout=30 * SLOW):
        return self.channel.unary_unary("/x.Y/" + method)(b"", timeout=timeout)


@pytest.mark.asan
def test_grpc_before_the_head():
    with GrpcSetup(request_ms=200) as s:
        with pytest.raises(grpc.RpcError) as e:
            s.call("slow")
        assert e.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert "W3002" in e.value.details() and "GRPCRoute/default/web rule 0: timeouts.request 200ms" in e.value.details()


def test_grpc_with_trailers_pending():
    """The head and a message have come; the limit ends the stream with trailers that say why."""
    with GrpcSetup(request_ms=400) as s:
        got = []
        with pytest.raises(grpc.RpcError) as e:
            for m in s.channel.unary_stream("/x.Y/stream")(b"", timeout=30 * SLOW):
                got.append(m)
        assert got == [b"one"]
        assert e.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert "timeouts.request 400ms" in e.value.details()


def test_the_application_hears_how_long_it_has():
    """The route's limit and the client's own, whichever is shorter (the library rounds its own up)."""
    with GrpcSetup(request_ms=LONG) as s:
        assert 0 < float(s.call("quick", timeout=1000)) <= 31
        assert 0 < float(s.call("quick", timeout=20)) <= 21
    with GrpcSetup() as s:
        assert 0 < float(s.call("quick", timeout=20)) <= 21
        assert float(s.call("quick", timeout=None)) < 0 or float(s.call("quick", timeout=None)) > 1e6


def test_a_clients_own_limit_is_kept_by_the_proxy():
    with GrpcSetup() as s:
        done = subprocess.run(["curl", "-sS", "-i", "-m", str(20 * SLOW), "--http2-prior-knowledge", "-X", "POST", "-H",
                               "content-type: application/grpc", "-H", "te: trailers", "-H", "grpc-timeout: 200m",
                               "--data-binary", "@-", s.proxy.url("/x.Y/slow")], input=b"\0\0\0\0\0",
                              stdout=subprocess.PIPE)
        text = done.stdout.decode()
        # the application's own library keeps the deadline, too: either may be first
        assert "grpc-status: 4" in text.lower(), text


class Heads:
    """An HTTP/2 server that remembers heads and answers every request with grpc-status 0."""

    def __init__(self):
        self.seen = []

    def __call__(self, c, _):
        h = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        h.initiate_connection()
        c.sendall(h.data_to_send())
        while True:
            data = c.recv(65536)
            if not data:
                return
            for e in h.receive_data(data):
                if isinstance(e, h2.events.RequestReceived):
                    self.seen.append(dict(e.headers))
                    h.send_headers(e.stream_id, [(":status", "200"), ("content-type", "application/grpc"),
                                                 ("grpc-status", "0")], end_stream=True)
            c.sendall(h.data_to_send())


def grpc_head(s, timeout):
    _, a = s.curl("--http2-prior-knowledge", "-X", "POST", "-H", "content-type: application/grpc", "-H", "te: trailers",
                  *(["-H", "grpc-timeout: " + timeout] if timeout else []))
    assert a.headers["grpc-status"] == "0", a


@pytest.mark.asan
@pytest.mark.parametrize("sent,least,most", [("10S", 0, 10), ("1H", 3000, 3600), ("99999999H", 99999998, 99999999)])
def test_what_is_left_goes_on(sent, least, most):
    heads = Heads()
    with Setup(heads) as s:
        grpc_head(s, sent)
        value = heads.seen[0]["grpc-timeout"]
        seconds = int(value[:-1]) * {"u": 1e-6, "m": 1e-3, "S": 1}[value[-1]]
        assert least < seconds <= most and (sent != "10S" or seconds < 10), value


def test_malformed_limits_are_passed_on():
    """Servers differ about them; the application's own library shall decide."""
    heads = Heads()
    with Setup(heads) as s:
        for bad in ("5", "1x", "123456789m", "-1m", "1 S"):
            grpc_head(s, bad)
            assert heads.seen[-1]["grpc-timeout"] == bad
        grpc_head(s, "")
        assert "grpc-timeout" not in heads.seen[-1]
        assert not [n for h in heads.seen for n in h if n.startswith("weft") or n.startswith("l5d")]


def test_nothing_left_reaches_nobody():
    heads = Heads()
    with Setup(heads) as s:
        _, a = s.curl("--http2-prior-knowledge", "-X", "POST", "-H", "content-type: application/grpc", "-H",
                      "te: trailers", "-H", "grpc-timeout: 0n")
        assert a.headers["grpc-status"] == "4" and a.headers["weft-code"] == "W3008"
        assert "grpc-timeout of the client" in a.headers["proxy-status"]
        assert not heads.seen


# ---- what an answer of the mesh does to an HTTP/1 connection: as actors/model/tbl/codes.h says ----

@pytest.mark.parametrize("view,code,closes", [
    (destination([rule()], []), b"W1001", True),
    (destination([], [1]), b"W1002", False),
    (destination([rule(backends=())], [1]), b"W1004", False),
    (destination([rule(backends=((0, 0),))], [1]), b"W1004", False),
    (destination([rule()], [1]), b"W2001", True),
])
def test_whether_an_answer_ends_the_connection(view, code, closes):
    link = Link(view)
    proxy = Linked(link, 1, WEFT_FAILFAST_TIMEOUT="200ms")
    try:
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=20 * SLOW) as c:
            c.sendall(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
            head = read_until(c, b"\r\n\r\n")
            assert code in head, head
            assert (b"connection: close" in head.lower()) == closes, head
            if closes:
                assert read_all(c) == b""
            else:
                c.sendall(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
                assert code in read_until(c, b"\r\n\r\n")
    finally:
        code = proxy.stop()
        link.close()
    assert code == 0
