"""The proxy alone, in plain text: what worked without it works through it."""
import os
import shutil
import socket
import subprocess
import threading
import time

import pytest

from proxies import Proxy, Server, listener, read_all, read_request, read_until

pytestmark = pytest.mark.asan


def http_server(c, number):
    """Answers every request with its own head and content."""
    while True:
        try:
            head, body = read_request(c)
        except AssertionError:
            return
        lines = head.split(b"\r\n")
        content = head + b"\n--\n" + body
        if lines[0].startswith(b"HEAD"):
            c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n")
            continue
        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX-Conn: %d\r\nL5d-Foo: bar\r\n\r\n" % (len(content), number) + content)


@pytest.fixture
def made():
    """Makes servers and proxies; ends all of them."""
    things = []

    def make(handler, **env):
        server = Server(handler)
        proxy = Proxy(server.port, **env)
        things.extend([proxy.stop, server.close])
        return proxy, server

    yield make
    codes = [end() for end in things]
    assert all(code in (None, 0) for code in codes), codes


# ---- HTTP/1 ----

def test_get(made):
    proxy, _ = made(http_server)
    got = proxy.curl("-i", proxy.url("/a/b?c=d"))
    assert got.returncode == 0, got
    assert "GET /a/b?c=d HTTP/1.1" in got.stdout
    assert "X-Conn: 1" in got.stdout


def test_mesh_fields_are_taken_both_ways(made):
    proxy, _ = made(http_server)
    got = proxy.curl("-i", "-H", "L5d-Client-Id: evil", "-H", "weft-attempt: 3", "-H", "l5d_client_id: evil",
                     "-H", "L5D.client-id: evil", "-H", "weft!code: evil", proxy.url())
    assert "evil" not in got.stdout and "weft-attempt" not in got.stdout
    assert "L5d-Foo" not in got.stdout


def test_names_keep_their_case(made):
    proxy, _ = made(http_server)
    assert "x-OdD-CaSe: yes" in proxy.curl("-H", "x-OdD-CaSe: yes", proxy.url()).stdout


def test_connections_are_reused(made):
    proxy, server = made(http_server)
    for _ in range(20):
        assert proxy.curl(proxy.url()).returncode == 0
    assert server.accepted <= 2


def test_post_and_chunked(made):
    proxy, _ = made(http_server)
    body = "x" * 200000
    path = os.path.join(proxy.run_dir, "body")
    with open(path, "w") as f:
        f.write(body)
    assert proxy.curl("--data-binary", "@" + path, proxy.url()).stdout.endswith(body)
    got = proxy.curl("-H", "Transfer-Encoding: chunked", "--data-binary", "@" + path, proxy.url())
    assert "transfer-encoding: chunked" in got.stdout.lower() and got.stdout.count("x") >= len(body)


def test_head_has_no_content(made):
    proxy, _ = made(http_server)
    got = proxy.curl("-I", proxy.url(), proxy.url())
    assert got.stdout.count("Content-Length: 12345") == 2


def test_pipelined_requests_are_answered_in_order(made):
    proxy, _ = made(http_server)
    with proxy.connect() as s:
        s.sendall(b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % i for i in range(20)))
        data = b""
        while b"GET /19 " not in data:
            data += s.recv(65536)
        at = [data.index(b"GET /%d " % i) for i in range(20)]
    assert at == sorted(at)


def test_byte_by_byte(made):
    proxy, _ = made(http_server)
    with proxy.connect() as s:
        for b in b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n":
            s.sendall(bytes([b]))
            time.sleep(0.002)
        assert b"GET /slow" in read_until(s, b"--\n")


def test_http_1_0(made):
    proxy, _ = made(http_server)
    with proxy.connect() as s:
        s.sendall(b"GET /old HTTP/1.0\r\n\r\n")
        data = read_all(s)
    assert data.startswith(b"HTTP/1.0 200") and b"GET /old HTTP/1.0" in data


def test_absolute_form(made):
    proxy, _ = made(http_server)
    with proxy.connect() as s:
        s.sendall(b"GET http://web.test/p HTTP/1.1\r\nHost: web.test\r\n\r\n")
        assert b"GET http://web.test/p HTTP/1.1" in read_until(s, b"--\n")


@pytest.mark.parametrize("head", [
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
])
def test_ambiguous_requests_are_never_forwarded(made, head):
    proxy, server = made(http_server)
    with proxy.connect() as s:
        s.sendall(head)
        data = read_all(s)
    assert data.startswith(b"HTTP/1.1 400 ")
    assert b"proxy-status:" in data.lower() and b"weft-code:" in data.lower()
    assert server.accepted == 0


def test_server_that_dies_in_its_answer(made):
    def cut(c, number):
        read_request(c)
        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")

    proxy, _ = made(cut)
    assert proxy.curl(proxy.url()).returncode == 18  # partial file


def test_server_that_closes_without_an_answer(made):
    def close(c, number):
        read_request(c)

    proxy, _ = made(close)
    got = proxy.curl("-i", proxy.url())
    assert " 502 " in got.stdout and "weft-code: W2004" in got.stdout
    assert "error=connection_terminated" in got.stdout


def test_server_that_talks_nonsense(made):
    def nonsense(c, number):
        read_request(c)
        c.sendall(b"\x00\x01\x02 whatever\r\n\r\n")

    proxy, _ = made(nonsense)
    assert "weft-code: W2006" in proxy.curl("-i", proxy.url()).stdout


def test_nobody_listens():
    s = listener()
    port = s.getsockname()[1]
    s.close()
    proxy = Proxy(port)
    try:
        got = proxy.curl("-i", proxy.url())
        assert " 502 " in got.stdout and "weft-code: W2001" in got.stdout
        assert 'next-hop="127.0.0.1:%d"' % port in got.stdout
    finally:
        assert proxy.stop() == 0


def test_idle_connection_closed_under_a_request(made):
    """The server closes after each answer without saying so: requests must not notice."""
    def once(c, number):
        head, _ = read_request(c)
        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    proxy, server = made(once)
    for _ in range(30):
        got = proxy.curl("-o", "/dev/null", "-w", "%{http_code}", proxy.url())
        assert got.stdout == "200"


def test_expect_continue(made):
    def server(c, number):
        data = read_until(c, b"\r\n\r\n")
        assert b"expect: 100-continue" in data.lower()
        c.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = b""
        while len(body) < 5:
            body += c.recv(100)
        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + body)

    proxy, _ = made(server)
    with proxy.connect() as s:
        s.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        assert b" 100 " in read_until(s, b"\r\n\r\n")
        s.sendall(b"hello")
        assert b"hello" in read_until(s, b"hello")


def test_upgrade_becomes_a_tunnel(made):
    def server(c, number):
        head, _ = read_request(c)
        assert b"upgrade: odd/1" in head.lower()
        c.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: odd/1\r\n\r\nfirst")
        data = b""
        while True:
            piece = c.recv(1000)
            if not piece:
                break
            data += piece
            c.sendall(piece.upper())
        c.sendall(b"END " + data)

    proxy, server_ = made(server)
    with proxy.connect() as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: odd/1\r\n\r\n")
        assert b"first" in read_until(s, b"first")
        s.sendall(b"abc")
        assert read_until(s, b"ABC") == b"ABC"
        s.shutdown(socket.SHUT_WR)
        assert read_all(s) == b"END abc"
    assert not server_.errors


def test_trailers(made):
    def server(c, number):
        read_request(c)
        c.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
                  b"3\r\nabc\r\n0\r\nX-Sum: 42\r\n\r\n")

    proxy, _ = made(server)
    with proxy.connect() as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n")
        assert b"X-Sum: 42" in read_until(s, b"42\r\n\r\n")


def test_slow_reader_stops_the_writer(made):
    total = 64 << 20
    sent = []

    def server(c, number):
        read_request(c)
        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        n = 0
        block = b"z" * 65536
        while n < total:
            n += c.send(block)
            sent.append(n)

    proxy, _ = made(server)
    with proxy.connect(timeout=20) as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        deadline = time.monotonic() + 10
        last = -1
        while time.monotonic() < deadline:  # until the server is stuck
            time.sleep(0.3)
            if sent and sent[-1] == last:
                break
            last = sent[-1] if sent else -1
        assert 0 < last < 32 << 20
        n = len(read_until(s, b"\r\n\r\n").split(b"\r\n\r\n", 1)[1])
        while n < total:
            n += len(s.recv(1 << 20))
        assert n == total


# ---- HTTP/2 ----

@pytest.fixture
def h2_site(tmp_path):
    """nghttpd, plain text HTTP/2, serving a directory."""
    (tmp_path / "index.html").write_text("hello from h2")
    (tmp_path / "big").write_bytes(os.urandom(3 << 20))
    s = listener()
    port = s.getsockname()[1]
    s.close()
    p = subprocess.Popen(["nghttpd", "--no-tls", "-d", str(tmp_path), "--echo-upload", str(port)], stdout=subprocess.DEVNULL)
    proxy = Proxy(port)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            time.sleep(0.05)
    yield proxy, tmp_path
    proxy.stop()
    p.terminate()
    p.wait()


@pytest.mark.skipif(shutil.which("nghttpd") is None, reason="nghttp2-server is not installed")
def test_http2(h2_site):
    proxy, _ = h2_site
    got = proxy.curl("-i", "--http2-prior-knowledge", proxy.url("/index.html"))
    assert got.stdout.startswith("HTTP/2 200") and got.stdout.endswith("hello from h2"), got


@pytest.mark.skipif(shutil.which("nghttpd") is None, reason="nghttp2-server is not installed")
def test_http2_large_and_many(h2_site):
    proxy, path = h2_site
    out = os.path.join(proxy.run_dir, "out")
    got = proxy.curl("--http2-prior-knowledge", "-o", out, proxy.url("/big"))
    assert got.returncode == 0, got
    with open(out, "rb") as f:
        assert f.read() == (path / "big").read_bytes()
    got = subprocess.run(["h2load", "-n", "500", "-c", "4", "-m", "20", proxy.url("/index.html")],
                         capture_output=True, text=True, timeout=30)
    assert "500 succeeded" in got.stdout, got.stdout


@pytest.mark.skipif(shutil.which("nghttpd") is None, reason="nghttp2-server is not installed")
def test_http2_upload(h2_site):
    proxy, path = h2_site
    got = subprocess.run(["curl", "-sS", "-m", "10", "--http2-prior-knowledge", "--data-binary", "@" + str(path / "big"),
                          "-o", os.path.join(proxy.run_dir, "echo"), proxy.url("/x")], capture_output=True, text=True)
    assert got.returncode == 0, got
    with open(os.path.join(proxy.run_dir, "echo"), "rb") as f:
        assert f.read() == (path / "big").read_bytes()


# ---- opaque ----

def echo(c, number):
    while True:
        data = c.recv(65536)
        if not data:
            return
        c.sendall(data)


def test_opaque_client_first(made):
    proxy, _ = made(echo)
    with proxy.connect() as s:
        s.sendall(b"\x01\x02\x03not http")
        assert read_until(s, b"http") == b"\x01\x02\x03not http"


def test_opaque_looks_like_http_at_first(made):
    proxy, _ = made(echo)
    with proxy.connect() as s:
        s.sendall(b"SET ")
        time.sleep(0.1)
        s.sendall(b"key value\r\n")
        assert read_until(s, b"\n") == b"SET key value\r\n"


def test_server_speaks_first_without_delay(made):
    def server(c, number):
        c.sendall(b"220 ready\r\n")
        echo(c, number)

    proxy, server_ = made(server)
    begun = time.monotonic()
    with proxy.connect() as s:
        assert read_until(s, b"\n") == b"220 ready\r\n"
        assert time.monotonic() - begun < 1.0
        s.sendall(b"HELO me\r\n")
        assert read_until(s, b"\n") == b"HELO me\r\n"
    assert server_.accepted == 1


def test_silence_on_both_sides_then_server(made):
    """Detection has no result: after its limit the connection is opaque."""
    def server(c, number):
        time.sleep(0.6)
        c.sendall(b"late\n")

    proxy, _ = made(server, WEFT_DETECT_TIMEOUT="300ms")
    with proxy.connect() as s:
        assert read_until(s, b"\n") == b"late\n"


def test_partial_request_line_times_out_to_opaque(made):
    proxy, _ = made(echo, WEFT_DETECT_TIMEOUT="200ms")
    with proxy.connect() as s:
        s.sendall(b"GET /")
        assert read_until(s, b"/") == b"GET /"


def test_half_close_towards_server(made):
    def server(c, number):
        data = read_all(c)
        c.sendall(b"got %d" % len(data))

    proxy, _ = made(server)
    with proxy.connect() as s:
        s.sendall(b"\x00" * 100000)
        s.shutdown(socket.SHUT_WR)
        assert read_all(s) == b"got 100000"


def test_client_that_only_listens(made):
    def server(c, number):
        data = read_all(c)
        c.sendall(b"the time, %d" % len(data))

    proxy, _ = made(server)
    with proxy.connect() as s:
        s.shutdown(socket.SHUT_WR)
        assert read_all(s) == b"the time, 0"
    with proxy.connect() as s:
        s.sendall(b"GE")
        s.shutdown(socket.SHUT_WR)
        assert read_all(s) == b"the time, 2"


def test_half_close_towards_client(made):
    box = []

    def server(c, number):
        c.sendall(b"\x00bye")
        c.shutdown(socket.SHUT_WR)
        box.append(read_all(c))

    proxy, _ = made(server)
    with proxy.connect() as s:
        assert read_all(s) == b"\x00bye"
        s.sendall(b"still here")
        s.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + 5
        while not box and time.monotonic() < deadline:
            time.sleep(0.01)
    assert box == [b"still here"]


def test_reset_is_passed_on(made):
    def server(c, number):
        c.recv(10)
        c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")

    proxy, _ = made(server)
    with proxy.connect() as s:
        s.sendall(b"\x00")
        with pytest.raises(ConnectionResetError):
            while s.recv(100):
                pass


def test_opaque_bulk_both_ways(made):
    proxy, _ = made(echo)
    data = os.urandom(8 << 20)
    with proxy.connect(timeout=30) as s:
        s.sendall(b"\x00")
        got = []

        def reader():
            n = 0
            while n < len(data) + 1:
                piece = s.recv(1 << 20)
                if not piece:
                    return
                got.append(piece)
                n += len(piece)

        t = threading.Thread(target=reader)
        t.start()
        s.sendall(data)
        t.join(30)
    assert b"".join(got) == b"\x00" + data


def test_opaque_port_skips_detection():
    """A port on the list is not looked at: what looks like HTTP passes as it is."""
    server = Server(echo)
    proxy = Proxy(server.port, WEFT_OPAQUE_PORTS="%d" % server.port)
    try:
        with proxy.connect() as s:
            s.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert read_until(s, b"\r\n\r\n") == b"GET / HTTP/1.1\r\n\r\n"
    finally:
        proxy.stop()
        server.close()


# ---- inbound ----

def test_inbound_plain():
    server = Server(http_server)
    proxy = Proxy(server.port, inbound=True)
    try:
        got = proxy.curl("-i", "-H", "l5d-client-id: evil", proxy.url("/in"))
        assert "GET /in HTTP/1.1" in got.stdout and "evil" not in got.stdout
    finally:
        proxy.stop()
        server.close()


def test_inbound_without_target_is_refused():
    """Not redirected, no mesh TLS: nobody may use the inbound port as an open proxy."""
    server = Server(http_server)
    proxy = Proxy(server.port, inbound=True, WEFT_INBOUND_TARGET="")
    try:
        got = proxy.curl(proxy.url())
        assert got.returncode in (7, 52, 56), got
        assert server.accepted == 0
    finally:
        proxy.stop()
        server.close()


def test_outbound_without_redirect_is_refused():
    server = Server(http_server)
    proxy = Proxy(server.port, WEFT_OUTBOUND_TARGET="")
    try:
        assert proxy.curl(proxy.url()).returncode in (7, 52, 56)
        assert server.accepted == 0
    finally:
        proxy.stop()
        server.close()


# ---- limits, drain ----

def test_idle_timeout(made):
    proxy, _ = made(http_server, WEFT_IDLE_TIMEOUT="1s")
    with proxy.connect() as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        read_until(s, b"--\n")
        assert s.recv(10) == b""



def test_connection_limit_pauses_accepting():
    server = Server(echo)
    proxy = Proxy(server.port, WEFT_MAX_CONNECTIONS=6)
    try:
        held = [proxy.connect() for _ in range(3)]
        for s in held:
            s.sendall(b"\x00a")
            read_until(s, b"a")
        late = proxy.connect()
        late.sendall(b"\x00b")
        late.settimeout(0.5)
        with pytest.raises(socket.timeout):
            late.recv(10)
        held.pop().close()
        late.settimeout(5)
        assert late.recv(10)
        for s in held + [late]:
            s.close()
    finally:
        proxy.stop()
        server.close()


def test_drain_finishes_what_runs(made):
    go = threading.Event()

    def server(c, number):
        read_request(c)
        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        go.wait(10)
        c.sendall(b"world")

    proxy, _ = made(server)
    with proxy.connect() as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        read_until(s, b"hello")
        proxy.process.terminate()
        time.sleep(0.3)
        assert proxy.process.poll() is None
        go.set()
        assert read_until(s, b"world").endswith(b"world")
        assert s.recv(10) == b""
    assert proxy.process.wait(5) == 0
