"""Requests and connections between pods: what an application sends arrives unchanged, encrypted, from whom it is."""
import os
import signal
import socket
import textwrap
import time

import pytest

from meshes import AT_ONCE, SLOW, wait_for

pytestmark = pytest.mark.asan

SERVER = textwrap.dedent(r'''
    import socket, sys, threading, time

    def until(c, mark, data=b""):
        while mark not in data:
            piece = c.recv(65536)
            if not piece:
                raise EOFError
            data += piece
        return data

    def http(c):
        while True:
            head, rest = until(c, b"\r\n\r\n").split(b"\r\n\r\n", 1)
            lower = head.lower()
            line = head.split(b"\r\n")[0]
            if b"expect: 100-continue" in lower:
                c.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            if b"upgrade: odd/1" in lower:
                c.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: odd/1\r\n\r\nfirst")
                while True:
                    piece = c.recv(1000)
                    if not piece:
                        break
                    c.sendall(piece.upper())
                c.sendall(b"END")
                return
            body = rest
            if b"transfer-encoding: chunked" in lower:
                while not body.endswith(b"0\r\n\r\n"):
                    body += c.recv(65536)
            for l in lower.split(b"\r\n"):
                if l.startswith(b"content-length:"):
                    while len(body) < int(l.split(b":")[1]):
                        body += c.recv(65536)
            if line.split()[1] == b"/trailers":
                c.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 42\r\n\r\n")
                continue
            if line.split()[1] == b"/slam":
                return
            if line.split()[1] == b"/busy":
                c.sendall(b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy")
                continue
            if line.split()[1] == b"/cut":
                c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")
                return
            if line.split()[1] == b"/early":
                c.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")
            content = head + b"\n--\n" + body
            c.sendall(b"HTTP/1.1 200 OK\r\nWeft-Delivered: no\r\nContent-Length: %d\r\n\r\n" % len(content) + content)
            if line.endswith(b"1.0"):
                return

    def first(c):
        c.sendall(b"220 ready\r\n")
        data = b""
        while True:
            piece = c.recv(65536)
            if not piece:
                break
            data += piece
        c.sendall(b"got %d" % len(data))

    def serve(port, handler):
        s = socket.socket(socket.AF_INET6)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("::", port))
        s.listen(128)
        def one(c):
            try:
                handler(c)
            except (EOFError, OSError):
                pass
            finally:
                c.close()
        while True:
            c, _ = s.accept()
            threading.Thread(target=one, args=(c,), daemon=True).start()

    threading.Thread(target=serve, args=(9000, first), daemon=True).start()
    serve(8080, http)
''')

TALK = textwrap.dedent(r'''
    import socket, sys
    host, port, text = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode().decode("unicode_escape").encode("latin-1")
    s = socket.create_connection((host, port), 10)
    s.settimeout(10)
    if "--wait" in sys.argv:
        sys.stdout.buffer.write(s.recv(65536))
    s.sendall(text)
    if "--half" in sys.argv:
        s.shutdown(socket.SHUT_WR)
    while True:
        piece = s.recv(65536)
        if not piece:
            break
        sys.stdout.buffer.write(piece)
''')


def serves(client):
    got = client.exec("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-m", "5", "http://web:8080/")
    return got.stdout == "200"


@pytest.fixture(scope="module")
def pods(shared_mesh):
    program = shared_mesh.python(SERVER)
    web = shared_mesh.run("web", ["python3", program], ports=["8080", "9000"])
    client = shared_mesh.client()
    client.talk = shared_mesh.python(TALK)
    wait_for(lambda: serves(client), "web serves")
    yield shared_mesh, client, web
    for app in (web, client):
        log = app.log()
        for bad in ("AddressSanitizer", "LeakSanitizer", "runtime error", " bug "):
            assert bad not in log, log[-3000:]


def talk(client, port, text, *options):
    done = client.exec("python3", client.talk, "web", str(port), text, *options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_identity_of_the_caller(pods):
    _, client, _ = pods
    got = client.http("http://web:8080/x?y=z", "-H", "l5d-client-id: evil", "-H", "l5d_client_id: evil")
    assert got.status == 200
    assert "GET /x?y=z HTTP/1.1" in got.body
    assert "l5d-client-id: client.default.serviceaccount.identity" in got.body
    assert "evil" not in got.body
    assert "l5d-orig-proto" not in got.body and "weft-" not in got.body
    assert "weft-delivered" not in got.headers and "l5d-orig-proto" not in got.headers


def test_http_1_0(pods):
    _, client, _ = pods
    got = talk(client, 8080, r"GET /old HTTP/1.0\r\nHost: web\r\n\r\n")
    assert got.startswith("HTTP/1.0 200") and "GET /old HTTP/1.0" in got


def test_absolute_form(pods):
    _, client, _ = pods
    got = talk(client, 8080, r"GET http://web/abs HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
    assert "GET http://web/abs HTTP/1.1" in got


def test_content_both_ways(pods):
    mesh, client, _ = pods
    path = os.path.join(mesh.dir, "content")
    with open(path, "w") as f:
        f.write("x" * 1500000)
    os.chmod(path, 0o644)
    got = client.exec("curl", "-sS", "-m", "20", "--data-binary", "@" + path, "http://web:8080/")
    assert got.stdout.endswith("x" * 1500000)
    got = client.exec("curl", "-sS", "-m", "20", "-H", "Transfer-Encoding: chunked", "-H", "Expect:", "--data-binary", "@" + path,
                      "http://web:8080/")
    assert got.stdout.count("x") >= 1500000


def test_expect_continue(pods):
    _, client, _ = pods
    got = client.http("http://web:8080/", "-H", "Expect: 100-continue", "-d", "hello")
    assert "hello" in got.body


def test_early_hints(pods):
    _, client, _ = pods
    got = talk(client, 8080, r"GET /early HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
    assert got.startswith("HTTP/1.1 103") and "HTTP/1.1 200" in got


def test_trailers(pods):
    _, client, _ = pods
    got = talk(client, 8080, r"GET /trailers HTTP/1.1\r\nHost: web\r\nTE: trailers\r\nConnection: close, TE\r\n\r\n")
    assert "x-sum: 42" in got.lower()


def test_upgrade(pods):
    _, client, _ = pods
    got = talk(client, 8080, r"GET / HTTP/1.1\r\nHost: web\r\nConnection: upgrade\r\nUpgrade: odd/1\r\n\r\nabc", "--half")
    assert "101" in got.splitlines()[0] and got.endswith("firstABCEND")


def test_cut_answer_is_cut(pods):
    _, client, _ = pods
    got = client.exec("curl", "-sS", "-m", "10", "http://web:8080/cut")
    assert got.returncode != 0 and got.stdout == "short"


def test_closed_without_answer(pods):
    _, client, _ = pods
    got = client.http("http://web:8080/slam", "-d", "x")
    assert got.status == 502
    assert got.headers["weft-code"] == "W2004"
    assert "weft-inbound" in got.headers["proxy-status"]
    assert "weft-delivered" not in got.headers


def test_server_speaks_first(pods):
    _, client, _ = pods
    begun = time.monotonic()
    got = talk(client, 9000, "x" * 1000, "--wait", "--half")
    assert got == "220 ready\ngot 1000"
    assert time.monotonic() - begun < 5 * SLOW


def test_mesh_port_is_for_the_mesh(pods):
    """Neither plain text nor TLS without a certificate gets in at the inbound port."""
    _, client, web = pods
    address = web.exec("hostname", "-I").stdout.split()[0]
    got = client.exec("curl", "-sS", "-m", "5", "http://%s:4143/" % address, user="2102")  # past its own proxy
    assert got.returncode != 0 and got.stdout == ""
    got = client.exec("curl", "-sSk", "-m", "5", "https://%s:4143/" % address, user="2102")
    assert got.returncode != 0 and got.stdout == ""
    assert client.http("http://%s:4143/" % address).status in (502, 503)


def test_many_connections(pods):
    _, client, _ = pods
    got = client.exec("wrk", "-t1", "-c40", "-d2", "http://web:8080/", timeout=30)
    assert "Non-2xx" not in got.stdout and "Socket errors" not in got.stdout, got.stdout


def test_is_counted(pods):
    mesh, _, _ = pods

    def seen():
        rows = [r for r in mesh.json("stat") if r["name"] == "web"]
        return rows and rows[0]["mtls_share"] and rows[0]["rps"] > 0
    wait_for(seen, "weft stat knows web")


def test_two_workers(mesh):
    """Several proxies of one pod share its listeners; all of them serve and are counted."""
    program = mesh.python(SERVER)
    web = mesh.run("web", ["python3", program], ports=["8080"], env={"WEFT_WORKERS": "2"})
    client = mesh.client()
    wait_for(lambda: serves(client), "web serves")
    rows = web.status()
    assert rows["weft-proxy.0"]["state"] == "ready" and rows["weft-proxy.1"]["state"] == "ready"
    got = client.exec("wrk", "-t1", "-c16", "-d1", "http://web:8080/", timeout=30)
    assert "Non-2xx" not in got.stdout and "Socket errors" not in got.stdout, got.stdout


# ---- failure ----

def test_post_that_did_not_arrive_is_made_again(mesh):
    """One of two instances has no application behind its proxy: no POST may fail, none may be made twice."""
    program = mesh.python(SERVER)
    mesh.run("web", ["python3", program], ports=["8080"])
    mesh.run("web", ["sleep", "1000"], ports=["8080"], env=AT_ONCE)
    client = mesh.client()
    wait_for(lambda: serves(client), "web serves")
    for i in range(30):
        got = client.http("http://web:8080/p%d" % i, "-d", "hello")
        assert got.status == 200, got
        assert got.body.endswith("hello")


def test_server_proxy_is_killed_under_traffic(mesh):
    program = mesh.python(SERVER)
    web = mesh.run("web", ["python3", program], ports=["8080"])
    client = mesh.client()
    wait_for(lambda: serves(client), "web serves")
    wrk = client.popen("wrk", "-t1", "-c8", "-d4", "http://web:8080/", stdout=-1, text=True)
    time.sleep(1)
    pid = web.status()["weft-proxy.0"]["pid"]
    os.kill(pid, signal.SIGKILL)
    out, _ = wrk.communicate(timeout=30)
    wait_for(lambda: web.status()["weft-proxy.0"]["pid"] not in (0, pid), "proxy restarted")
    assert client.http("http://web:8080/").status == 200
    assert "Socket errors" not in out, out
