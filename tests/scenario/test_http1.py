"""HTTP/1.0 and 1.1 on every way: between two meshed pods (HTTP/2 between their proxies), from a meshed pod to a server
outside of the mesh, and from a client outside to a meshed pod. Bytes by hand first, then the programs people use."""
import json
import select
import textwrap
import time

import pytest

from meshes import wait_for
from raw_http import Ended, Recorder, Stream, ask, is_closed, plain, read_answer
from test_http1_case import pods, way  # noqa: F401  (fixtures)

pytestmark = pytest.mark.asan

PYTHON = "/usr/bin/python3"
BIG = 3 * 1024 * 1024


@pytest.fixture
def door(way):  # noqa: F811
    """way, with an application whose behaviour a test sets: door.answer(...)."""
    open_one, recorder = way

    class Door:
        connect = staticmethod(open_one)

        @staticmethod
        def answer(fn):
            recorder.answer = fn
    Door.recorder = recorder
    before = recorder.answer
    recorder.answer = Recorder.echo
    yield Door
    recorder.answer = before


def get(target="/x", *lines, version="HTTP/1.1", method="GET"):
    return "\r\n".join(["%s %s %s" % (method, target, version), "Host: web", *lines, "", ""]).encode()


def post(content=b"", *lines, target="/x", version="HTTP/1.1"):
    return get(target, "Content-Length: %d" % len(content), *lines, version=version, method="POST") + content


def silent(s, seconds=0.3):
    return not select.select([s], [], [], seconds)[0]


# ---- connections ----

def test_both_sides_are_kept(door):
    with door.connect() as s:
        st = Stream(s)
        for i in range(20):
            s.sendall(get("/%d" % i))
            assert read_answer(st).content == b"GET /%d HTTP/1.1 " % i
    assert door.recorder.connections <= 2


def test_pipelined(door):
    with door.connect() as s:
        s.sendall(b"".join(get("/%d" % i) if i % 2 else post(b"%d" % i, target="/%d" % i) for i in range(64)))
        st = Stream(s)
        for i in range(64):
            assert read_answer(st).content.split()[1] == b"/%d" % i
    assert [m.line.split()[1] for m in door.recorder.requests] == ["/%d" % i for i in range(64)]


def test_the_client_says_close(door):
    for i in range(3):
        with door.connect() as s:
            m = ask(s, get("/%d" % i, "Connection: close"))
            assert m.status == 200 and m.get("connection") == "close" and is_closed(s)
    assert all(not r.get("connection") for r in door.recorder.requests), "it is the client's connection that closes"


def test_the_server_says_close(door):
    def closing(_r, m, _st, c):
        c.sendall(plain(m.line.encode(), b"Connection: close\r\n"))
        return False
    door.answer(closing)
    with door.connect() as s:
        st = Stream(s)
        for i in range(5):
            s.sendall(post(b"abc", target="/%d" % i))
            m = read_answer(st)
            assert m.status == 200 and m.content == b"POST /%d HTTP/1.1" % i
            if m.get("connection") == "close":
                break
    assert not door.recorder.broken


def test_a_half_closed_client_gets_its_answer(door):
    def slow(_r, _m, _st, c):
        time.sleep(0.2)
        c.sendall(plain(b"late"))
    door.answer(slow)
    with door.connect() as s:
        s.sendall(get())
        s.shutdown(1)
        assert read_answer(Stream(s)).content == b"late"


# ---- content ----

def test_chunked_both_ways_with_extensions_and_trailers(door):
    def chunked(_r, m, _st, c):
        c.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n" +
                  b"%x;a=\"b;c\"\r\n%s\r\n0;last\r\nX-Sum: 42\r\nX-Content-Length: 9\r\n\r\n" % (len(m.content), m.content))
    door.answer(chunked)
    with door.connect() as s:
        st = Stream(s)
        for i in range(3):
            s.sendall(get("/x", "Transfer-Encoding: chunked", "TE: trailers", "Connection: TE", "Trailer: X-In", method="POST"))
            s.sendall(b"3;x=y\r\nabc\r\n4\r\ndefg\r\n0\r\nX-In: %d\r\n\r\n" % i)
            m = read_answer(st)
            assert m.content == b"abcdefg" and m.trailers == ["X-Sum: 42", "X-Content-Length: 9"] and m.get("trailer") == "X-Sum"
            got = door.recorder.requests[i]
            assert got.content == b"abcdefg" and got.trailers == ["X-In: %d" % i] and got.get("trailer") == "X-In"
            assert got.get("te") == "trailers"


def test_large_content_both_ways(door):
    big = bytes(range(256)) * (BIG // 256)
    with door.connect() as s:
        s.settimeout(30)
        s.sendall(post(big))
        assert read_answer(Stream(s)).content == b"POST /x HTTP/1.1 " + big
    assert door.recorder.requests[0].content == big


def test_content_until_the_connection_ends(door):
    def old(_r, _m, _st, c):
        c.sendall(b"HTTP/1.0 200 OK\r\nX-A: b\r\n\r\nfirst ")
        time.sleep(0.05)
        c.sendall(b"second")
        return False
    door.answer(old)
    with door.connect() as s:
        m = ask(s, get())
        assert m.status == 200 and m.content == b"first second" and m.get("x-a") == "b"
    with door.connect() as s:
        m = ask(s, get(version="HTTP/1.0"))
        assert m.content == b"first second" and not m.get("transfer-encoding") and is_closed(s)


def test_a_cut_answer_is_seen_to_be_cut(door):
    def cut(_r, m, _st, c):
        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort" if m.line.startswith("GET /length") else
                  b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n")
        return False
    door.answer(cut)
    for target in ("/length", "/chunks"):
        with door.connect() as s:
            st = Stream(s)
            s.sendall(get(target))
            head = st.until(b"\r\n\r\n")
            rest = st.rest()
            assert b"200" in head and b"short" in rest
            assert not rest.endswith(b"0\r\n\r\n") and not rest.endswith(b"0\r\n")


@pytest.mark.parametrize("method,answer,status,length", [
    ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 42\r\n\r\n", 200, "42"),
    ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200, None),
    ("HEAD", b"HTTP/1.1 200 OK\r\n\r\n", 200, None),
    ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", 204, None),
    ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 42\r\nETag: x\r\n\r\n", 304, "42"),
    ("GET", b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n", 304, None),
    ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, "0"),
    ("GET", b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", 205, "0"),
    ("DELETE", b"HTTP/1.1 299 Odd one\r\nContent-Length: 0\r\n\r\n", 299, "0"),
])
def test_answers_without_content(door, method, answer, status, length):
    door.answer(lambda _r, _m, _st, c: c.sendall(answer))
    with door.connect() as s:
        st = Stream(s)
        for _ in range(3):
            s.sendall(get(method=method))
            m = read_answer(st, method)
            assert m.status == status and m.get("content-length") == length, m
            assert m.content == b"" and silent(s, 0.02) and st.data == b""


# ---- 100 and other informational answers ----

def test_expect_and_the_server_says_100(door):
    def asks_for_it(_r, m, st, c):
        c.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        content = st.exactly(5)
        c.sendall(plain(content))
    asks_for_it.reads_content = True
    door.answer(asks_for_it)
    with door.connect() as s:
        st = Stream(s)
        for _ in range(3):
            s.sendall(get("/x", "Expect: 100-continue", "Content-Length: 5", method="POST"))
            assert st.until(b"\r\n\r\n").startswith(b"HTTP/1.1 100")
            s.sendall(b"hello")
            assert read_answer(st).content == b"hello"
    assert door.recorder.requests[0].get("expect") == "100-continue"


@pytest.mark.parametrize("status", [b"417 Expectation Failed", b"200 OK", b"413 Too Large"])
def test_expect_and_the_server_answers_at_once(door, status):
    def refuses(_r, m, _st, c):
        c.sendall(plain(b"no", b"", status))
        return False
    refuses.reads_content = True
    door.answer(refuses)
    with door.connect() as s:
        m = ask(s, get("/x", "Expect: 100-continue", "Content-Length: 5", method="POST"))
        assert m.status == int(status[:3]) and m.content == b"no"
        assert m.get("connection") == "close" and is_closed(s), "whether the content comes is not known: the end"


def test_expect_and_the_server_never_says_100(door):
    def waits(_r, m, st, c):
        c.sendall(plain(st.exactly(5)))
    waits.reads_content = True
    door.answer(waits)
    with door.connect() as s:
        s.sendall(get("/x", "Expect: 100-continue", "Content-Length: 5", method="POST"))
        assert silent(s)
        s.sendall(b"hello")  # as clients do after a second of their own
        assert read_answer(Stream(s)).content == b"hello"


def test_early_hints(door):
    def hints(_r, m, _st, c):
        for i in range(3):
            c.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </%d.css>; rel=preload\r\nX-Case: %d\r\n\r\n" % (i, i))
            time.sleep(0.03)
        c.sendall(plain(b"page"))
    door.answer(hints)
    with door.connect() as s:
        st = Stream(s)
        for _ in range(2):
            s.sendall(get())
            m = read_answer(st)
            assert m.content == b"page"
            assert [i.get("link") for i in m.informational] == ["</%d.css>; rel=preload" % i for i in range(3)]
            assert m.informational[0].names() == ["Link", "X-Case"]
    with door.connect() as s:
        m = ask(s, get(version="HTTP/1.0"))
        assert m.content == b"page" and not m.informational, "HTTP/1.0 knows no such thing"


# ---- tunnels ----

def tunnel(head):
    def answer(_r, m, st, c):
        c.sendall(head)
        while True:
            if st.data:
                c.sendall(st.data.upper())
                st.data = b""
            try:
                st.more()
            except Exception:  # the other side has finished
                c.sendall(b" END")
                return False
    return answer


def test_connect(door):
    door.answer(tunnel(b"HTTP/1.1 200 Connection established\r\nX-A: b\r\n\r\nhello "))
    with door.connect() as s:
        st = Stream(s)
        s.sendall(b"CONNECT web:8080 HTTP/1.1\r\nHost: web:8080\r\n\r\nearly ")
        m = read_answer(st, "CONNECT")
        assert m.status == 200 and not m.get("content-length") and not m.get("transfer-encoding") and m.get("x-a") == "b"
        assert st.exactly(12) == b"hello EARLY "
        s.sendall(b"more\r\n\r\nGET / HTTP/1.1\r\n")
        assert st.exactly(24) == b"MORE\r\n\r\nGET / HTTP/1.1\r\n"
        s.shutdown(1)
        assert st.rest() == b" END"
    assert door.recorder.requests[0].line == "CONNECT web:8080 HTTP/1.1"


def test_connect_refused(door):
    door.answer(lambda _r, m, _st, c: c.sendall(plain(b"not here", b"", b"403 Forbidden")))
    with door.connect() as s:
        s.sendall(b"CONNECT web:8080 HTTP/1.1\r\nHost: web:8080\r\n\r\n")
        m = read_answer(Stream(s))
        assert m.status == 403 and m.content == b"not here"


@pytest.mark.parametrize("protocol", ["websocket", "odd/2", "TLS/1.0, HTTP/1.1"])
def test_upgrade(door, protocol):
    p = protocol.encode()
    door.answer(tunnel(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\nX-A: b\r\n\r\nfirst " % p))
    with door.connect() as s:
        st = Stream(s)
        s.sendall(get("/up", "Connection: keep-alive, Upgrade", "Upgrade: " + protocol, "Sec-Thing: 1") + b"early ")
        m = read_answer(st)
        assert m.status == 101 and m.get("upgrade") == protocol and m.get("connection").lower() == "upgrade" and m.get("x-a") == "b"
        assert st.exactly(12) == b"first EARLY "
        s.sendall(b"x" * 300000)
        assert st.exactly(300000) == b"X" * 300000
        s.shutdown(1)
        assert st.rest() == b" END"
    got = door.recorder.requests[0]
    assert got.get("upgrade") == protocol and got.get("connection").lower() == "upgrade" and got.get("sec-thing") == "1"


def test_upgrade_refused_goes_on(door):
    with door.connect() as s:
        st = Stream(s)
        s.sendall(get("/no", "Connection: Upgrade", "Upgrade: odd/2"))
        m = read_answer(st)
        assert m.status == 200
        if m.get("connection") != "close":
            s.sendall(get("/next"))
            assert read_answer(st).content == b"GET /next HTTP/1.1 "


# ---- forms and versions ----

def test_absolute_form(door):
    with door.connect() as s:
        assert ask(s, get("http://web/abs?q=1")).status == 200
    assert door.recorder.requests[0].line == "GET http://web/abs?q=1 HTTP/1.1" and door.recorder.requests[0].get("host") == "web"


def test_http_1_0(door):
    with door.connect() as s:
        m = ask(s, b"GET /old HTTP/1.0\r\n\r\n")
        assert m.status == 200 and m.line.startswith("HTTP/1.0") and is_closed(s)
    assert door.recorder.requests[0].line == "GET /old HTTP/1.0"
    with door.connect() as s:
        st = Stream(s)
        for i in range(3):
            s.sendall(get("/%d" % i, "Connection: keep-alive", version="HTTP/1.0"))
            m = read_answer(st)
            assert m.status == 200 and m.get("connection").lower() == "keep-alive" and m.get("content-length")


def test_chunks_for_an_http_1_0_client(door):
    door.answer(lambda _r, _m, _st, c: c.sendall(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"))
    with door.connect() as s:
        m = ask(s, get("/x", "Connection: keep-alive", version="HTTP/1.0"))
        assert not m.get("transfer-encoding") and m.content == b"hello" and is_closed(s)


# ---- limits ----

def test_large_answer_heads(door):
    lines = b"".join(b"X-%d: %s\r\n" % (i, b"a" * 10000) for i in range(6))
    many = b"".join(b"X-%d: b\r\n" % i for i in range(199))
    door.answer(lambda _r, m, _st, c: c.sendall(plain(b"ok", many if "many" in m.line else lines)))
    with door.connect() as s:
        m = ask(s, get("/big"))
        assert m.status == 200 and len(m.get("x-5")) == 10000
    with door.connect() as s:
        m = ask(s, get("/many"))
        assert m.status == 200 and m.get("x-198") == "b"


def test_a_limit_names_itself_and_the_field(door):
    with door.connect() as s:
        m = ask(s, get("/x", "Cookie: " + "a" * 17000))
        assert m.status == 431 and "WEFT_FIELD_MAX: Cookie" in m.get("proxy-status") and is_closed(s)
    with door.connect() as s:
        m = ask(s, get("/" + "a" * 9000))
        assert m.status == 414 and "WEFT_LINE_MAX" in m.get("proxy-status") and is_closed(s)
    with door.connect() as s:
        m = ask(s, get("/x", *["X-%d: 1" % i for i in range(200)]))
        assert m.status == 431 and "WEFT_FIELDS_MAX): X-199" in m.get("proxy-status") and is_closed(s)
    assert not door.recorder.requests


# ---- H1-31: an answer before the request is complete ----

@pytest.mark.parametrize("left", [1000, 500000])
def test_early_answer(door, left):
    def early(_r, m, _st, c):
        if m.line.startswith("POST"):
            c.sendall(plain(b"early"))
            return False
        return Recorder.echo(_r, m, _st, c)
    early.reads_content = True
    door.answer(early)
    with door.connect() as s:
        st = Stream(s)
        s.sendall(get("/x", "Content-Length: %d" % (left + 1000), method="POST") + b"a" * 1000)
        m = read_answer(st)
        assert m.status == 200 and m.content == b"early"
        if m.get("connection") == "close":
            assert is_closed(s)
        else:
            try:
                s.sendall(b"GET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n".ljust(left, b"x") + get("/next"))
                assert read_answer(st).content == b"GET /next HTTP/1.1 ", "the rest of the content is dropped, not read as a request"
            except (Ended, OSError):
                assert left > 65536, "so little is read to its end"
    assert not [m for m in door.recorder.requests if "smuggled" in m.line]
    with door.connect() as s:
        assert ask(s, get("/marker")).content == b"GET /marker HTTP/1.1 "


# ---- the programs people use ----

SERVERS = {
    "http.server": r'''
        import http.server
        class H(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            def log_message(self, *a): pass
            def do_GET(self): self.say(self.path.encode())
            def do_POST(self):
                if self.headers.get("Transfer-Encoding"):
                    body = b""
                    while True:
                        n = int(self.rfile.readline(), 16)
                        body += self.rfile.read(n)
                        self.rfile.readline()
                        if n == 0: break
                else:
                    body = self.rfile.read(int(self.headers["Content-Length"]))
                self.say(body)
            def say(self, body):
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
        http.server.ThreadingHTTPServer(("", 8080), H).serve_forever()
    ''',
    "aiohttp": r'''
        from aiohttp import web
        async def echo(request):
            body = await request.read()
            if request.method == "GET":
                body = request.path.encode()
            r = web.StreamResponse()
            if request.version >= (1, 1):
                r.enable_chunked_encoding()
            await r.prepare(request)
            await r.write(body)
            await r.write_eof()
            return r
        app = web.Application(client_max_size=1 << 26)
        app.router.add_route("*", "/{tail:.*}", echo)
        web.run_app(app, port=8080, print=None)
    ''',
}

CLIENTS = {
    "http.client": r'''
        import http.client, sys
        c = http.client.HTTPConnection(sys.argv[1], 8080, timeout=20)
        for i in range(20):
            c.request("GET", "/%d" % i)
            assert c.getresponse().read() == b"/%d" % i
            c.request("POST", "/p", body=b"x" * i * 1000)
            assert c.getresponse().read() == b"x" * i * 1000
            c.request("POST", "/p", body=iter([b"abc"] * (i + 1)), encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
            assert c.getresponse().read() == b"abc" * (i + 1)
        print("fine")
    ''',
    "aiohttp": r'''
        import asyncio, aiohttp, sys
        async def main():
            async with aiohttp.ClientSession() as s:
                async def one(i):
                    async with s.get("http://%s:8080/%d" % (sys.argv[1], i)) as r:
                        assert await r.read() == b"/%d" % i
                    async with s.post("http://%s:8080/" % sys.argv[1], data=b"y" * i * 500) as r:
                        assert await r.read() == b"y" * i * 500
                    async def pieces():
                        for _ in range(5):
                            yield b"z" * i
                    async with s.post("http://%s:8080/" % sys.argv[1], data=pieces()) as r:
                        assert await r.read() == b"z" * i * 5
                await asyncio.gather(*[one(i) for i in range(1, 60)])
        asyncio.run(main())
        print("fine")
    ''',
    "httpx": r'''
        import httpx, sys
        with httpx.Client(timeout=20) as c:
            for i in range(1, 20):
                assert c.get("http://%s:8080/%d" % (sys.argv[1], i)).content == b"/%d" % i
                assert c.post("http://%s:8080/" % sys.argv[1], content=b"q" * i * 999).content == b"q" * i * 999
        print("fine")
    ''',
    "curl": r'''
        import subprocess, sys
        def curl(*argv):
            return subprocess.run(["curl", "-sS", "-m", "20", *argv], capture_output=True, check=True).stdout
        url = "http://%s:8080/" % sys.argv[1]
        assert curl(url + "a", url + "b", url + "c") == b"/a/b/c"
        assert curl("--data-binary", "x" * 100000, url) == b"x" * 100000
        assert curl("-H", "Expect: 100-continue", "--data-binary", "x" * 2000, url) == b"x" * 2000
        assert curl("-H", "Transfer-Encoding: chunked", "--data-binary", "x" * 5000, url) == b"x" * 5000
        assert curl("-0", url + "old") == b"/old"
        assert curl("-x", "http://%s:8080" % sys.argv[1], url + "proxied").endswith(b"/proxied")
        print("fine")
    ''',
}


@pytest.fixture(scope="module")
def echoes(shared_mesh):
    apps = {}
    for name, program in SERVERS.items():
        service = "echo-" + name.replace(".", "-")
        shared_mesh.run(service, [PYTHON, shared_mesh.python(textwrap.dedent(program))], ports=["8080"])
        apps[name] = service
    client = shared_mesh.client("programs")
    for service in apps.values():
        wait_for(lambda: client.http("http://%s:8080/" % service).status == 200, service + " serves", 30)
    return shared_mesh, client, apps


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("program", CLIENTS)
def test_programs(echoes, server, program):
    mesh, client, apps = echoes
    done = client.exec(PYTHON, mesh.python(textwrap.dedent(CLIENTS[program])), apps[server], timeout=60)
    assert done.stdout == "fine\n", done.stderr[-2000:]


ROUTE = '''
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: chat, namespace: default}
spec:
  parentRefs:
  - {name: chat, kind: Service, group: core, port: 8080}
  rules:
  - matches:
    - path: {type: PathPrefix, value: /}
    timeouts: {request: 400ms, backendRequest: 300ms}
'''

CHAT = textwrap.dedent(r'''
    import asyncio, websockets
    async def echo(ws, *_):
        async for m in ws:
            await ws.send(m)
    async def main():
        async with websockets.serve(echo, None, 8080, ping_interval=None):
            await asyncio.Future()
    asyncio.run(main())
''')

TALK = textwrap.dedent(r'''
    import asyncio, websockets, json
    async def main():
        async with websockets.connect("ws://chat:8080/", ping_interval=None) as ws:
            for n in (1, 1000, 300000):
                await ws.send("x" * n)
                assert len(await ws.recv()) == n
                await asyncio.sleep(0.9)  # silence, for longer than a request may take
            await ws.ping()
            await ws.close(4001, "done")
            print(json.dumps([ws.close_code, ws.close_reason]))
    asyncio.run(main())
''')


def test_no_request_limit_cuts_a_websocket(shared_mesh):
    shared_mesh.run("chat", [PYTHON, shared_mesh.python(CHAT)], ports=["8080"])
    client = shared_mesh.client("talker")
    wait_for(lambda: client.http("http://chat:8080/").status == 426, "the server serves", 30)
    shared_mesh.apply(ROUTE)
    done = client.exec(PYTHON, shared_mesh.python(TALK), timeout=60)
    assert done.stdout and json.loads(done.stdout) == [4001, "done"], done.stderr[-2000:]


def test_nginx_serves_a_large_file(shared_mesh):
    from test_http1_idle import NGINX
    config = (NGINX % {"name": shared_mesh.bridge + "f"}).replace('return 200 "fine\\n";', "root %s; sendfile on;" % shared_mesh.dir)
    path = shared_mesh.python("x" * 5000000)
    shared_mesh.run("files", ["nginx", "-c", shared_mesh.python(config), "-e", "/dev/null"], ports=["8080"])
    client = shared_mesh.client("reader")
    url = "http://files:8080/" + path.rsplit("/", 1)[1]
    wait_for(lambda: client.http(url, "-I").status == 200, "nginx serves")
    got = client.exec("curl", "-sS", "-m", "20", url)
    assert got.stdout == "x" * 5000000
    got = client.exec("curl", "-sS", "-m", "20", "-r", "4999990-", "-w", "%{http_code}", url)
    assert got.stdout == "x" * 10 + "206"
