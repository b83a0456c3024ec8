"""The idle race: servers that end kept connections just as the next request comes. Nothing fails that provably was not
read, nothing is made twice that may not be, and the proxy learns when to drop idle connections itself."""
import collections
import socket
import struct
import textwrap
import threading
import time

import pytest

from meshes import AT_ONCE, wait_for
from raw_http import Recorder, address_of, ask, connect, plain
from traffic import metrics, total

PYTHON = "/usr/bin/python3"

# Counts what it was asked, by target, and says so at /count. Ends idle connections after a second.
TIMED = textwrap.dedent(r'''
    import collections, http.server, json, threading
    counts, lock = collections.Counter(), threading.Lock()
    class Web(http.server.BaseHTTPRequestHandler):
        protocol_version, timeout, wbufsize, disable_nagle_algorithm = "HTTP/1.1", 1.0, -1, True
        def log_message(self, *a): pass
        def do_GET(self):
            if self.path == "/count":
                with lock:
                    return self.say(json.dumps(counts).encode())
            self.do_POST()
        def do_POST(self):
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with lock:
                counts[self.path] += 1
            self.say(content)
        def say(self, content):
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
    class Server(http.server.ThreadingHTTPServer):
        request_queue_size = 256
        def handle_error(self, *a): pass
    Server(("", 8080), Web).serve_forever()
''')

NGINX = textwrap.dedent(r'''
    daemon off;
    worker_processes 1;
    pid /tmp/nginx-%(name)s.pid;
    error_log /dev/null;
    events { worker_connections 512; }
    http {
        access_log off;
        client_body_temp_path /tmp/nginx-%(name)s-body;
        proxy_temp_path /tmp/nginx-%(name)s-proxy;
        fastcgi_temp_path /tmp/nginx-%(name)s-fcgi;
        uwsgi_temp_path /tmp/nginx-%(name)s-uwsgi;
        scgi_temp_path /tmp/nginx-%(name)s-scgi;
        server {
            listen 8080;
            keepalive_timeout 1s;
            location / { return 200 "fine\n"; }
        }
    }
''')


class Burst:
    """n connections of a client that all ask at the same moment."""

    def __init__(self, app, host, n, port=8080):
        self.sockets = [connect(app, host, port, 30) for _ in range(n)]
        self.bad, self.lock, self.asked = [], threading.Lock(), 0

    def ask(self, method, tag):
        barrier = threading.Barrier(len(self.sockets))

        def one(i, s):
            barrier.wait()
            content = b"%d" % i if method == "POST" else b""
            head = "%s /%s-%d HTTP/1.1\r\nHost: web\r\n" % (method, tag, i)
            if content:
                head += "Content-Length: %d\r\n" % len(content)
            m = ask(s, head.encode() + b"\r\n" + content, method)
            with self.lock:
                self.asked += 1
                if m.status != 200:
                    self.bad.append((tag, i, m))
        threads = [threading.Thread(target=one, args=a) for a in enumerate(self.sockets)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()

    def close(self):
        for s in self.sockets:
            s.close()


def around_a_second(burst, method):
    """Bursts whose distance walks over the server's limit in steps of 4 ms."""
    for i in range(-5, 7):
        begun = time.monotonic()
        burst.ask(method, "%s%d" % (method.lower(), i + 5))
        time.sleep(max(0, begun + 1.0 + i * 0.004 - time.monotonic()))


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_limit_of_a_second(shared_mesh, method):
    name = "timed" + method.lower()
    app = shared_mesh.run(name, [PYTHON, shared_mesh.python(TIMED)], ports=["8080/http1"])
    client = shared_mesh.client()
    wait_for(lambda: client.http("http://%s:8080/count" % name).status == 200, "the server serves")
    burst = Burst(client, address_of(shared_mesh, name), 24)
    try:
        around_a_second(burst, method)
    finally:
        burst.close()
    assert not burst.bad, burst.bad[:3]
    counts = client.http("http://%s:8080/count" % name).body
    for key, n in collections.Counter(eval(counts)).items():
        assert n == 1 or method == "GET", "%s was made %d times" % (key, n)
    assert total(metrics(app), "weft_mesh_answers_total", direction="inbound") == 0


def test_nginx_with_a_limit_of_a_second(shared_mesh):
    path = shared_mesh.python(NGINX % {"name": shared_mesh.bridge})
    shared_mesh.run("ngx", ["nginx", "-c", path, "-e", "/dev/null"], ports=["8080/http1"])
    client = shared_mesh.client()
    wait_for(lambda: client.http("http://ngx:8080/").status == 200, "nginx serves")
    burst = Burst(client, address_of(shared_mesh, "ngx"), 24)
    try:
        around_a_second(burst, "POST")
    finally:
        burst.close()
    assert not burst.bad, burst.bad[:3]


def hammer(client, host, port, n, each):
    """n threads, each with a connection of its own and so many POSTs in a row; {status and code: how many}."""
    seen, lock = collections.Counter(), threading.Lock()

    def one(i):
        s = connect(client, host, port, 30)
        for k in range(each):
            m = ask(s, b"POST /%d-%d HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\n\r\nabc" % (i, k), "POST")
            with lock:
                seen[(m.status, m.get("weft-code"))] += 1
            if m.get("connection") == "close":
                s.close()
                s = connect(client, host, port, 30)
        s.close()
    threads = [threading.Thread(target=one, args=(i,)) for i in range(n)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return seen


@pytest.fixture(params=["pair", "unmeshed server"])
def unkind(request, shared_mesh):
    """(client, host, port, set_handler) of a server whose handling of connections the test decides."""
    if request.param == "pair":
        app = shared_mesh.run("unkind", ["sleep", "100000"], ports=["8080/http1"], env=AT_ONCE)
        client = shared_mesh.client()
        recorder = Recorder(app, 8080)
        wait_for(lambda: client.http("http://unkind:8080/").status == 200, "the server serves")
        yield client, address_of(shared_mesh, "unkind"), 8080, recorder
        recorder.close()
        app.stop()
    else:
        b, c = shared_mesh.net.split(".")[1:3]
        gateway = "10.%s.%s.1" % (b, c)
        recorder = Recorder(None, 18081, host=gateway)
        client = shared_mesh.client()
        wait_for(lambda: client.http("http://%s:18081/" % gateway).status == 200, "the server serves")
        yield client, gateway, 18081, recorder
        recorder.close()
    client.stop()


def test_a_server_that_closes_behind_every_answer_without_a_word(unkind):
    client, host, port, recorder = unkind

    def once(_r, _m, _st, c):
        c.sendall(plain())
        return False
    recorder.answer = once
    recorder.reset()
    seen = hammer(client, host, port, 8, 60)
    made = collections.Counter(m.line for m in recorder.requests)
    assert set(made.values()) == {1}, "no POST may be made twice"
    # It may take its time to close: what reached the socket of a program that is about to cannot be told from what it read.
    assert set(seen) <= {(200, None), (502, "W2010")} and seen[(200, None)] >= 450, seen


def test_a_server_that_resets_behind_every_answer(unkind):
    """A reset proves nothing: such a POST may fail, with a code of its own, and is never made twice."""
    client, host, port, recorder = unkind

    def once(_r, _m, _st, c):
        c.sendall(plain())
        time.sleep(0.002)
        c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False
    recorder.answer = once
    recorder.reset()
    seen = hammer(client, host, port, 4, 40)
    assert set(seen) <= {(200, None), (502, "W2010")} and seen[(200, None)] > 80, seen
    assert max(collections.Counter(m.line for m in recorder.requests).values()) == 1


def test_a_server_that_reads_a_request_and_goes_is_not_asked_again(unkind):
    client, host, port, recorder = unkind

    def second_is_too_much(r, m, _st, c):
        if m.line.startswith("POST /first"):
            c.sendall(plain())
            return True
        return False
    recorder.answer = second_is_too_much
    with connect(client, host, port) as s:
        assert ask(s, b"POST /first HTTP/1.1\r\nHost: web\r\nContent-Length: 0\r\n\r\n", "POST").status == 200
        recorder.reset()
        m = ask(s, b"POST /second HTTP/1.1\r\nHost: web\r\nContent-Length: 0\r\n\r\n", "POST")
    assert m.status == 502 and m.get("weft-code") in ("W2004", "W2010")
    assert [r.line for r in recorder.requests] == ["POST /second HTTP/1.1"]
