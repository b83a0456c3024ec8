"""Programs as people have them, unmodified, through the mesh: servers of several makes, and the corners of HTTP
and TCP that they use. Each test asks what the program would see without a mesh."""
import hashlib
import json
import os
import shutil
import socket
import subprocess
import textwrap

import pytest

from meshes import SLOW, wait_for

PYTHON = "/usr/bin/python3"
MIB = 1 << 20

# One server for all corners: raw sockets, so that what is on the wire is what is written here.
ORIGIN = textwrap.dedent(r'''
    import hashlib, socket, socketserver, sys, time

    def head(f):
        line = f.readline()
        if not line:
            return None, None
        fields = {}
        while (l := f.readline()) not in (b"\r\n", b""):
            name, _, value = l.decode().partition(":")
            fields[name.lower()] = value.strip()
        return line.decode().split(" ")[:2], fields

    def content(f, fields):
        if fields.get("transfer-encoding") == "chunked":
            while n := int(f.readline(), 16):
                yield f.read(n)
                f.readline()
            while (l := f.readline()) not in (b"\r\n", b""):
                name, _, value = l.decode().partition(":")
                fields["trailer " + name.lower()] = value.strip()
        left = int(fields.get("content-length", 0))
        while left > 0:
            piece = f.read(min(left, 65536))
            if not piece:
                return
            left -= len(piece)
            yield piece

    class H(socketserver.StreamRequestHandler):
        def say(self, text):
            self.wfile.write(text.replace("\n", "\r\n").encode())

        def handle(self):
            while True:
                request, fields = head(self.rfile)
                if not request:
                    return
                method, path = request
                if path == "/early":
                    self.say("HTTP/1.1 413 No\nContent-Length: 5\nConnection: close\n\nlarge")
                    self.wfile.flush()
                    self.request.shutdown(socket.SHUT_WR)
                    while self.request.recv(65536):
                        pass
                    return
                if fields.get("expect") == "100-continue" and path != "/unwanted":
                    self.say("HTTP/1.1 100 Continue\n\n")
                if path == "/unwanted":
                    self.say("HTTP/1.1 401 No\nContent-Length: 3\nConnection: close\n\nno\n")
                    return
                if path == "/sum":
                    h, n = hashlib.sha256(), 0
                    for piece in content(self.rfile, fields):
                        h.update(piece)
                        n += len(piece)
                    text = "%d %s %s" % (n, h.hexdigest(), fields.get("trailer x-sum", "-"))
                    self.say("HTTP/1.1 200 OK\nContent-Length: %d\n\n%s" % (len(text), text))
                    continue
                for _ in content(self.rfile, fields):
                    pass
                if path.startswith("/big/"):
                    n = int(path[5:])
                    self.say("HTTP/1.1 200 OK\nContent-Length: %d\n\n" % n)
                    block = bytes(range(256)) * 256
                    while n > 0:
                        self.wfile.write(block[:n])
                        n -= len(block)
                elif path == "/204":
                    self.say("HTTP/1.1 204 No Content\nX-A: b\n\n")
                elif path == "/304":
                    self.say('HTTP/1.1 304 Not Modified\nETag: "x"\nContent-Length: 1234\n\n')
                elif path == "/chunked":
                    self.say("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nTrailer: X-End\n\n"
                             "5\nhello\n6\n world\n0\nX-End: yes\n\n")
                elif path == "/close":
                    self.say("HTTP/1.1 200 OK\n\nuntil the end")
                    return
                elif path == "/hints":
                    self.say("HTTP/1.1 103 Early Hints\nLink: </a>\n\nHTTP/1.1 200 OK\nContent-Length: 2\n\nok")
                elif method == "HEAD":
                    self.say("HTTP/1.1 200 OK\nContent-Length: 77\n\n")
                else:
                    text = "%s %s" % (method, fields.get("host"))
                    self.say("HTTP/1.1 200 OK\nContent-Length: %d\n\n%s" % (len(text), text))

    class S(socketserver.ThreadingTCPServer):
        address_family = socket.AF_INET6
        allow_reuse_address = daemon_threads = True
        request_queue_size = 128
    s = S(("::", int(sys.argv[1])), H)
    print("listening", flush=True)
    s.serve_forever()
''')


def has(program):
    return shutil.which(program) is not None


def module(name, tried={}):
    if name not in tried:
        tried[name] = subprocess.run([PYTHON, "-c", "import " + name], capture_output=True).returncode == 0
    return tried[name]


def place(mesh, name):
    """A directory that the user of the programs can write to."""
    path = os.path.join(mesh.dir, name)
    os.makedirs(path, exist_ok=True)
    os.chmod(path, 0o777)
    return path


def listening(app):
    wait_for(lambda: "listening" in app.output(), "%s listens" % app.pod, 20)
    return app


@pytest.fixture(scope="module")
def town(shared_mesh):
    m = shared_mesh
    m.origin = listening(m.run("origin", [PYTHON, m.python(ORIGIN), "8080"], ports=["8080"]))
    m.me = m.client("me")
    return m


def talk(app, host, port, text, timeout=10):
    """Sends the bytes with nc, says that nothing follows (-N), and returns all that came."""
    done = subprocess.run(["nsenter", "-t", str(app.pid), "-n", "-m", "--", "setpriv", "--reuid", "nobody",
                           "--regid", "nogroup", "--clear-groups", PYTHON, "-c", textwrap.dedent("""
        import socket, sys
        s = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=float(sys.argv[3]))
        s.sendall(sys.stdin.buffer.read())
        s.shutdown(socket.SHUT_WR)
        while b := s.recv(65536):
            sys.stdout.buffer.write(b)
        """), host, str(port), str(timeout * SLOW)], input=text.replace("\n", "\r\n").encode(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout * SLOW + 5)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().replace("\r\n", "\n")


# ---- servers of several makes ----

NODE = """
require('http').createServer((q, a) => { a.setHeader('content-type', 'text/plain'); a.write('hello '); a.end('node'); })
  .listen(8080, () => console.log('listening'))
"""

NGINX = """
daemon off; worker_processes 1; error_log stderr warn; pid %(dir)s/pid;
events { worker_connections 512; }
http {
  access_log off; client_max_body_size 0;
  client_body_temp_path %(dir)s/b; proxy_temp_path %(dir)s/p; fastcgi_temp_path %(dir)s/f;
  uwsgi_temp_path %(dir)s/u; scgi_temp_path %(dir)s/s;
  server { listen 8080; listen [::]:8080; listen 8081 http2; keepalive_timeout 1;
    location /hi { return 200 "hello nginx"; } }
}
"""


def program_of(mesh, kind):
    where = place(mesh, kind)
    if kind == "python":
        with open(where + "/index.html", "w") as f:
            f.write("hello python")
        return [PYTHON, "-m", "http.server", "--directory", where, "8080"], "/"
    if kind == "node":
        with open(where + "/main.js", "w") as f:
            f.write(NODE)
        return ["node", where + "/main.js"], "/"
    with open(where + "/nginx.conf", "w") as f:
        f.write(NGINX % {"dir": where})
    return ["/usr/sbin/nginx", "-p", where, "-e", "stderr", "-c", where + "/nginx.conf"], "/hi"


@pytest.mark.parametrize("kind,program", [("python", PYTHON), ("nginx", "/usr/sbin/nginx"), ("node", "node")])
def test_a_web_server(town, kind, program):
    if not has(program):
        pytest.skip(program + " is not installed")
    argv, path = program_of(town, kind)
    app = town.run(kind, argv, ports=["8080", "8081"] if kind == "nginx" else ["8080"])
    wait_for(lambda: town.me.http("http://%s:8080%s" % (kind, path)).status == 200, kind + " serves", 20)
    for options in ([], ["--http1.0"], ["-6"]):
        answer = town.me.exec("curl", "-sS", "--max-time", "10", *options, "http://%s:8080%s" % (kind, path))
        assert answer.stdout == "hello " + kind, (options, answer)
    # HTTP/2 to a server that does not speak it: an error at once, as without a mesh.
    done = town.me.exec("curl", "-sS", "-w", "%{http_code}", "--max-time", "10", "--http2-prior-knowledge",
                        "http://%s:8080%s" % (kind, path))
    assert done.returncode != 0 or done.stdout == "502", done
    if kind == "nginx":
        done = town.me.exec("curl", "-sS", "-w", " %{http_version}", "--max-time", "10",
                            "--http2-prior-knowledge", "http://nginx:8081/hi")
        assert done.stdout == "hello nginx 2", done
    assert app.stop() in (0, 143), app.output()


@pytest.mark.skipif(not has("redis-server") or not has("redis-cli"), reason="redis is not installed")
def test_redis(town):
    listen = ["redis-server", "--save", "", "--protected-mode", "no", "--dir", place(town, "redis")]
    town.run("cache", listen, ports=["6379"])
    town.run("cache2", [*listen, "--port", "7777"], ports=["7777"])
    for host, port in (("cache", "6379"), ("cache2", "7777")):  # known to be opaque, and found out
        cli = ("redis-cli", "-h", host, "-p", port)
        wait_for(lambda: town.me.exec(*cli, "ping").stdout.strip() == "PONG", host + " answers", 20)
        assert town.me.exec(*cli, "-x", "set", "k", stdin="v" * 300000).stdout.strip() == "OK"
        assert town.me.exec(*cli, "strlen", "k").stdout.strip() == "300000"
        piped = town.me.exec(*cli, stdin="incr n\n" * 500).stdout.split()
        assert piped[-1] == "500"


MAIL = textwrap.dedent(r'''
    import socketserver
    class H(socketserver.StreamRequestHandler):
        def handle(self):
            self.wfile.write(b"220 mail ready\r\n")
            for line in self.rfile:
                word = line.split(b" ")[0].strip().upper()
                if word == b"DATA":
                    self.wfile.write(b"354 go on\r\n")
                    n = 0
                    while (l := self.rfile.readline()) not in (b".\r\n", b""):
                        n += len(l)
                    self.wfile.write(b"250 took %d\r\n" % n)
                elif word == b"QUIT":
                    self.wfile.write(b"221 bye\r\n")
                    return
                else:
                    self.wfile.write(b"250 ok\r\n")
    class S(socketserver.ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True
    s = S(("", 2525), H)
    print("listening", flush=True)
    s.serve_forever()
''')


def test_a_mail_server_that_speaks_first_on_an_unusual_port(town):
    listening(town.run("mail", [PYTHON, town.python(MAIL)], ports=["2525"]))
    done = town.me.exec(PYTHON, "-c", textwrap.dedent("""
        import smtplib
        with smtplib.SMTP("mail", 2525, timeout=10) as s:
            s.sendmail("a@b", ["c@d"], "Subject: x\\r\\n\\r\\n" + "line\\r\\n" * 20000)
            print(s.noop())
    """), timeout=30)
    assert "(250, b'ok')" in done.stdout, done.stderr


# ---- corners of HTTP/1 ----

def test_answers_without_content(town):
    answer = town.me.http("http://origin:8080/x", "--head")
    assert answer.status == 200 and answer.headers["content-length"] == "77"
    answer = town.me.http("http://origin:8080/204")
    assert answer.status == 204 and answer.headers["x-a"] == "b" and "content-length" not in answer.headers
    answer = town.me.http("http://origin:8080/304")
    assert answer.status == 304 and answer.headers["etag"] == '"x"' and answer.body == ""
    # All on one connection: nothing may be left behind for the next answer.
    got = talk(town.me, "origin", 8080, "HEAD /x HTTP/1.1\nHost: a\n\nGET /204 HTTP/1.1\nHost: a\n\n"
               "GET /304 HTTP/1.1\nHost: a\n\nGET /y HTTP/1.1\nHost: a\n\n")
    assert [line.split(" ")[1] for line in got.splitlines() if line.startswith("HTTP/1.1")] == \
        ["200", "204", "304", "200"] and got.endswith("GET a")


def test_an_old_client(town):
    got = talk(town.me, "origin", 8080, "GET /x HTTP/1.0\n\n")
    assert got.startswith("HTTP/1.") and " 200 " in got.splitlines()[0], got
    got = talk(town.me, "origin", 8080, "GET /chunked HTTP/1.0\nHost: a\n\n")
    assert "chunked" not in got.lower() and got.endswith("\n\nhello world"), got
    got = talk(town.me, "origin", 8080, "GET /x HTTP/1.0\nHost: a\nConnection: keep-alive\n\n"
               "GET /z HTTP/1.0\nHost: b\n\n")
    assert "GET a" in got and got.endswith("GET b"), got
    assert talk(town.me, "origin", 8080, "GET /close HTTP/1.1\nHost: a\n\n").count("until the end") == 1


def test_chunks_and_trailers_both_ways(town):
    got = talk(town.me, "origin", 8080, "POST /sum HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\nTE: trailers\n"
               "Trailer: X-Sum\n\n3\nabc\n5;x=y\ndefgh\n0\nX-Sum: seven\n\n")
    assert got.endswith("8 %s seven" % hashlib.sha256(b"abcdefgh").hexdigest()), got
    got = talk(town.me, "origin", 8080, "GET /chunked HTTP/1.1\nHost: a\nTE: trailers\n\n")
    assert "hello" in got and "world" in got and "x-end: yes" in got.lower(), got


def test_expectations(town):
    answer = town.me.http("http://origin:8080/sum", "-H", "Expect: 100-continue", "-d", "x" * 3000)
    assert answer.status == 200 and answer.body.startswith("3000 ")
    answer = town.me.http("http://origin:8080/unwanted", "-H", "Expect: 100-continue", "-d", "x" * 3000)
    assert answer.status == 401 and answer.body == "no\n"
    assert town.me.http("http://origin:8080/hints").status == 200


def test_an_answer_before_the_content_was_read(town):
    done = town.me.exec("sh", "-c", "head -c 30000000 /dev/zero | curl -sS -o - -w ' %{http_code}' --max-time 20 "
                        "-H Expect: -T - http://origin:8080/early", timeout=30)
    assert done.stdout == "large 413", done


def test_much_content_both_ways(town):
    """200 MB up and down, with checksums."""
    size = 200 * MIB // SLOW
    done = town.me.exec("sh", "-c", "head -c %d /dev/zero | curl -sS --max-time 90 -H Expect: -T - "
                        "http://origin:8080/sum" % size, timeout=100)
    h = hashlib.sha256()
    for _ in range(size // MIB):
        h.update(bytes(MIB))
    assert done.stdout == "%d %s -" % (size, h.hexdigest()), done
    done = town.me.exec("sh", "-c", "curl -sS --max-time 90 http://origin:8080/big/%d | sha256sum" % size,
                        timeout=100)
    h = hashlib.sha256()
    for _ in range(size // MIB):
        h.update(bytes(range(256)) * (MIB // 256))
    assert done.stdout.split()[0] == h.hexdigest(), done


# ---- connections ----

IDLE = textwrap.dedent(r'''
    import socketserver
    class H(socketserver.StreamRequestHandler):
        timeout = 1
        def handle(self):
            try:
                while (line := self.rfile.readline()):
                    while self.rfile.readline() not in (b"\r\n", b""):
                        pass
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            except TimeoutError:
                pass
    class S(socketserver.ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True
        request_queue_size = 128
    s = S(("", 8080), H)
    print("listening", flush=True)
    s.serve_forever()
''')


def test_a_server_that_closes_idle_connections(town):
    """After one second of silence: exactly when the proxy wants to use the connection again."""
    listening(town.run("idle", [PYTHON, town.python(IDLE)], ports=["8080"]))
    done = town.me.exec(PYTHON, "-c", textwrap.dedent("""
        import http.client, threading, time
        bad = []
        def one(k):
            c = http.client.HTTPConnection("idle", 8080, timeout=10)
            for pause in (1.0, 0.998, 1.002, 0.9995, 1.001, 0.9985):
                for method in ("GET", "POST"):
                    c.request(method, "/", headers={"Content-Length": "0"})
                    a = c.getresponse()
                    a.read()
                    if a.status != 200:
                        bad.append((method, a.status, dict(a.getheaders())))
                time.sleep(pause + k * 0.0001)
        threads = [threading.Thread(target=one, args=(k,)) for k in range(16)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        print(len(bad), bad[:3])
    """), timeout=60)
    assert done.stdout.startswith("0 "), (done.stdout, done.stderr)


def test_many_connections_kept(town):
    done = town.me.exec(PYTHON, "-c", textwrap.dedent("""
        import resource, socket, sys
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        all, bad = [], 0
        def is_answer(s, host):
            want, got = b"GET " + host, b""
            while not got.endswith(want) and (b := s.recv(4096)):
                got += b
            return got.endswith(want)
        for i in range(2000):
            s = socket.create_connection(("origin", 8080), timeout=20)
            s.sendall(b"GET /n%d HTTP/1.1\\r\\nHost: h%d\\r\\n\\r\\n" % (i, i))
            all.append(s)
            if i >= 100:
                bad += not is_answer(all[i - 100], b"h%d" % (i - 100))
        for i in range(1900, 2000):
            bad += not is_answer(all[i], b"h%d" % i)
        for i, s in enumerate(all):
            s.sendall(b"GET / HTTP/1.1\\r\\nHost: again%d\\r\\n\\r\\n" % i)
        for i, s in enumerate(all):
            bad += not is_answer(s, b"again%d" % i)
        print("bad", bad)
    """), timeout=60)
    assert done.stdout == "bad 0\n", (done.stdout, done.stderr[-500:])


COUNT = textwrap.dedent(r'''
    import socketserver
    class H(socketserver.StreamRequestHandler):
        def handle(self):
            n = 0
            while b := self.request.recv(65536):
                n += len(b)
            self.request.sendall(b"%d bytes\n" % n + b"y" * 100000)
    class S(socketserver.ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True
    s = S(("", 9000), H)
    print("listening", flush=True)
    s.serve_forever()
''')


def test_half_a_connection(town):
    """The server answers after the client has said that nothing more comes."""
    listening(town.run("count", [PYTHON, town.python(COUNT)], ports=["9000"]))
    for n in (0, 5, 300000):
        got = talk(town.me, "count", 9000, "z" * n, timeout=20)
        assert got.startswith("%d bytes\n" % n) and got.count("y") == 100001, got[:100]


# ---- beyond the mesh ----

def test_from_and_to_who_is_not_meshed(town):
    pod = [s for s in town.json("get", "sessions") if s["pod"] == town.origin.pod][0]
    for address in pod["addresses"].split(","):  # from the machine itself, IPv4 and IPv6
        host = "[%s]" % address if ":" in address else address
        done = subprocess.run(["curl", "-sS", "--max-time", "10", "http://%s:8080/x" % host],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert done.stdout == "GET %s:8080" % host, done.stderr
    gateway = str(town.net).split("/")[0].rsplit(".", 1)[0] + ".1"
    out = open(os.path.join(town.dir, "outside.out"), "w+")
    outside = subprocess.Popen([PYTHON, town.python(ORIGIN), "18080"], stdout=out, stderr=out)
    try:
        wait_for(lambda: "listening" in open(out.name).read(), "the server outside listens", 20)
        assert town.me.http("http://%s:18080/x" % gateway).body == "GET %s:18080" % gateway
        town.apply(json.dumps({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "old"},
                               "spec": {"ports": [{"port": 80, "targetPort": 18080}]}}))
        town.apply(json.dumps({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "old-1", "labels": {"kubernetes.io/service-name": "old"}},
            "ports": [{"port": 18080}], "endpoints": [{"addresses": [gateway]}]}))
        answer = wait_for(lambda: (lambda a: a if a.status == 200 else None)(town.me.http("http://old/x")),
                          "the service of the slice answers", 10)
        assert answer.body == "GET old"
    finally:
        outside.kill()
        outside.wait()
        out.close()
    # A server that is no pod and does not listen: refused, not hanging.
    answer = town.me.http("http://%s:18081/x" % gateway)
    assert answer.status in (502, 504), answer


def test_ipv6_without_names(town):
    pod = [s for s in town.json("get", "sessions") if s["pod"] == town.origin.pod][0]
    address6 = [a for a in pod["addresses"].split(",") if ":" in a][0]
    assert town.me.http("http://[%s]:8080/x" % address6).status == 200
    service = town.json("get", "services", "origin")[0]
    assert town.me.http("http://[%s]:8080/x" % service["address6"]).status == 200
    with socket.create_connection((address6, 8080), timeout=10) as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: six\r\n\r\n")
        assert b"GET six" in s.recv(4096)
