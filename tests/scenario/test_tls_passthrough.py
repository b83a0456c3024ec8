"""TLS of the applications themselves: passed as it is, routed by its server name, and visible in the metrics."""
import json
import os
import socket
import ssl
import subprocess
import textwrap

import pytest

from meshes import wait_for
from traffic import metrics, settled, total

PYTHON = "/usr/bin/python3"

# A TLS (or plain) server that tells who it is, then what it hears, and passes ends on.
SERVER = textwrap.dedent(r'''
    import socket, socketserver, ssl, sys, threading
    who, port, cert = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    context = None
    if cert != "-":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert + ".pem", cert + ".key")
    class H(socketserver.BaseRequestHandler):
        def handle(self):
            s = self.request
            if context is not None:
                s = context.wrap_socket(s, server_side=True)
            data, n = b"", 0
            while not data.endswith(b"\n"):
                more = s.recv(65536)
                if not more:
                    return
                data += more
            s.sendall(who.encode() + b" " + data)
            if context is not None:
                s.unwrap()
    class S(socketserver.ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True
        request_queue_size = 128
    S(("", port), H).serve_forever()
''')

# Asks `count` times; prints the first word of each answer, or how it failed.
CLIENT = textwrap.dedent(r'''
    import socket, ssl, sys
    host, port, sni, count = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for _ in range(count):
        try:
            s = socket.create_connection((host, port), timeout=15)
            if sni != "plain":
                s = context.wrap_socket(s, server_hostname=sni if sni != "-" else None)
            s.sendall(b"hello\n")
            print(s.recv(1000).split()[0].decode())
            s.close()
        except (ConnectionError, IndexError, ssl.SSLError):
            print("refused")
''')

# The ClientHello byte by byte, or with its first record cut in many, then the rest of the conversation.
PIECES = textwrap.dedent(r'''
    import socket, ssl, sys
    host, port, sni, how = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if how == "large":
        context.set_alpn_protocols(["x%03d" % i + "y" * 240 for i in range(85)])
    came, goes = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(came, goes, server_hostname=sni)
    s = socket.create_connection((host, port), timeout=15)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    def run(f):
        while True:
            try:
                got = f()
                s.sendall(goes.read())
                return got
            except ssl.SSLWantReadError:
                s.sendall(goes.read())
                data = s.recv(65536)
                if not data:
                    raise SystemExit("cut")
                came.write(data)
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        hello = goes.read()
        if how == "records":
            body, hello = hello[5:], b""
            for i in range(0, len(body), 50):
                piece = body[i:i + 50]
                hello += b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece
        if how == "bytes":
            for i in range(len(hello)):
                s.sendall(hello[i:i + 1])
        else:
            s.sendall(hello)
        print(len(hello), file=sys.stderr)
    run(tls.do_handshake)
    tls.write(b"hello\n")
    s.sendall(goes.read())
    print(run(lambda: tls.read(1000)).split()[0].decode())
''')

NGINX = """
daemon off; master_process off; pid %(dir)s/nginx.pid; error_log %(dir)s/error.log;
events { worker_connections 128; }
http {
  access_log off; client_max_body_size 100m; client_body_temp_path %(dir)s/body; proxy_temp_path %(dir)s/p;
  fastcgi_temp_path %(dir)s/f; uwsgi_temp_path %(dir)s/u; scgi_temp_path %(dir)s/s;
  server {
    listen 8443 ssl http2; listen [::]:8443 ssl http2;
    ssl_certificate %(cert)s.pem; ssl_certificate_key %(cert)s.key;
    ssl_client_certificate %(ca)s.pem; ssl_verify_client optional; ssl_protocols TLSv1.2 TLSv1.3;
    location / { return 200 "$server_protocol $ssl_protocol $ssl_client_verify $ssl_client_s_dn $ssl_server_name\\n"; }
    location /files/ { alias %(dir)s/; }
  }
}
"""


def openssl(*argv):
    subprocess.run(["openssl", *argv], check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)


class Town:
    def __init__(self, mesh):
        self.mesh = mesh
        self.server_py, self.client_py, self.pieces_py = (mesh.python(t) for t in (SERVER, CLIENT, PIECES))
        self.ca = self.certificate("ca")
        self.me = mesh.client()

    def path(self, name):
        return os.path.join(self.mesh.dir, name)

    def certificate(self, name, *names):
        """Self-signed; NAME.pem and NAME.key that everybody may read."""
        base = self.path("own-" + name)
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                "-subj", "/CN=" + name, "-keyout", base + ".key", "-out", base + ".pem",
                "-addext", "subjectAltName=" + ",".join("DNS:" + n for n in names or (name,)))
        os.chmod(base + ".key", 0o644)
        os.chmod(base + ".pem", 0o644)
        return base

    def place(self, name):
        path = self.path(name)
        os.mkdir(path)
        os.chown(path, 65534, 65534)
        return path

    def serve(self, who, port, cert="-"):
        return self.mesh.run(who, [PYTHON, self.server_py, who, str(port), cert], ports=[str(port)])

    def ask(self, host, port, sni, count=1):
        done = self.me.exec(PYTHON, self.client_py, host, str(port), sni, str(count), timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    def until(self, want, host, port, sni):
        wait_for(lambda: self.ask(host, port, sni) == [want], "%s says %s for %s" % (host, want, sni), 20)

    def opened(self, **labels):
        return settled(lambda: total(metrics(self.me), "tcp_open_total", direction="outbound", peer="src", **labels))

    def answers(self, code):
        return settled(lambda: total(metrics(self.me), "weft_mesh_answers_total", direction="outbound", code=code))

    def said(self, what, *argv):
        return json.loads(self.mesh.weft("route", what, *argv, "--from", "client", "--json", check=False).stdout)


@pytest.fixture(scope="module")
def town(shared_mesh):
    return Town(shared_mesh)


@pytest.fixture(scope="module")
def nginx(town):
    place = town.place("nginx")
    with open(place + "/big", "wb") as f:
        f.write(os.urandom(1 << 20) * 24)
    with open(place + "/conf", "w") as f:
        f.write(NGINX % {"dir": place, "cert": town.certificate("site", "site", "site.example.org"), "ca": town.ca})
    app = town.mesh.run("site", ["/usr/sbin/nginx", "-c", place + "/conf", "-e", place + "/error.log"], ports=["8443"])
    wait_for(lambda: "HTTP/2.0" in town.me.exec("curl", "-sk", "https://site:8443/").stdout, "nginx serves", 20)
    return app


def curl(town, *argv, host="site", path="/"):
    return town.me.exec("curl", "-sS", "--cacert", town.path("own-site.pem"), *argv, "https://%s:8443%s" % (host, path))


def test_the_application_s_own_certificate_and_alpn(town, nginx):
    before = town.opened(tls="opaque", sni="site")
    assert curl(town).stdout.startswith("HTTP/2.0 TLSv1.3 NONE")
    assert curl(town, "--http1.1", "--tls-max", "1.2").stdout.startswith("HTTP/1.1 TLSv1.2 NONE")
    assert curl(town, "--http2", "--tls-max", "1.2").stdout.startswith("HTTP/2.0 TLSv1.2 NONE")
    shown = town.me.exec("sh", "-c", "openssl s_client -connect site:8443 -servername site.example.org -alpn h2 "
                         "-showcerts | tr -cd '[:print:]\\n'", stdin="").stdout
    with open(town.path("own-site.pem")) as f:
        assert f.read().strip() in shown
    assert "ALPN protocol: h2" in shown
    assert town.opened(tls="opaque", sni="site") == before + 3
    assert town.opened(tls="opaque", sni="site.example.org") == 1
    assert town.opened(tls="opaque", sni="other") == 0


def test_client_certificates_of_the_application(town, nginx):
    base = town.path("own-me")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=me", "-keyout", base + ".key", "-out", base + ".csr")
    openssl("x509", "-req", "-in", base + ".csr", "-CA", town.ca + ".pem", "-CAkey", town.ca + ".key", "-days", "2",
            "-CAcreateserial", "-out", base + ".pem")
    os.chmod(base + ".key", 0o644)
    for version in ("1.2", "1.3"):
        got = curl(town, "--tls-max", version, "--cert", base + ".pem", "--key", base + ".key").stdout
        assert got.startswith("HTTP/2.0 TLSv%s SUCCESS CN=me" % version), got


def test_big_transfers_both_ways(town, nginx):
    out = town.place("out")
    done = curl(town, "-o", out + "/got", path="/files/big")
    assert done.returncode == 0, done.stderr
    with open(out + "/got", "rb") as a, open(town.path("nginx/big"), "rb") as b:
        assert a.read() == b.read()
    done = curl(town, "--http1.1", "-o", "/dev/null", "-w", "%{http_code} %{size_upload}", "-T", out + "/got")
    assert done.stdout.split() == ["200", str(24 << 20)], done


def test_s_server_in_both_versions(town):
    cert = town.certificate("plainserver")
    town.mesh.run("sserver", ["openssl", "s_server", "-accept", "8444", "-cert", cert + ".pem", "-key", cert + ".key",
                              "-rev", "-quiet"], ports=["8444"])

    def ask(*more):
        return town.me.exec("openssl", "s_client", "-quiet", "-connect", "sserver:8444", *more,
                            stdin="hello\nCLOSE\n").stdout  # the server ends then
    wait_for(lambda: "olleh" in ask(), "the server turns words", 20)
    for version in ("-tls1_2", "-tls1_3"):
        assert "olleh" in ask(version)
        assert "olleh" in ask(version, "-noservername")


def test_from_and_to_outside_of_the_mesh(town, nginx):
    ip = nginx.exec("hostname", "-I").stdout.split()[0]
    got = subprocess.run(["curl", "-sS", "--cacert", town.path("own-site.pem"), "--resolve", "site:8443:" + ip,
                          "https://site:8443/"], stdout=subprocess.PIPE, text=True, timeout=30)
    assert got.stdout.startswith("HTTP/2.0 TLSv1.3"), got
    gateway = str(town.mesh.net).split("/")[0].rsplit(".", 1)[0] + ".1"
    outer = subprocess.Popen([PYTHON, town.server_py, "outer", "18443", town.certificate("outer")])
    try:
        town.until("outer", gateway, 18443, "outer.example.org")
    finally:
        outer.terminate()
        outer.wait()


TLS_ROUTE = """
apiVersion: gateway.networking.k8s.io/v1alpha3
kind: TLSRoute
metadata: {name: %s}
spec:
  parentRefs: [{kind: Service, group: core, name: front, port: 9443}]
  hostnames: [%s]
  rules: [{backendRefs: [%s]}]
"""
TCP_ROUTE = """
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TCPRoute
metadata: {name: bytes}
spec:
  parentRefs: [{kind: Service, group: core, name: front, port: 9443}]
  rules: [{backendRefs: [%s]}]
"""


@pytest.fixture(scope="module")
def shops(town):
    for who in ("front", "red", "blue"):
        town.serve(who, 9443, town.certificate(who))
    for who in ("grey", "green"):
        town.serve(who, 9000)
    for who in ("front", "red", "blue"):
        town.until(who, who, 9443, who)
    for who in ("grey", "green"):
        town.until(who, who, 9000, "plain")
    return town


@pytest.fixture
def apply(shops):
    texts = []

    def one(text):
        texts.append(text)
        shops.mesh.apply(text)
    yield one
    for text in texts:
        shops.mesh.weft("delete", "-f", "-", stdin=text, check=False)
    shops.until("front", "front", 9443, "front")


def test_by_server_name(shops, apply):
    apply(TLS_ROUTE % ("exact", "a.example.org", "{name: red, port: 9443}"))
    apply(TLS_ROUTE % ("wild", "'*.example.org'", "{name: blue, port: 9443}"))
    shops.until("blue", "front", 9443, "b.example.org")
    refused, closes = shops.answers("W1011"), 0
    cases = [("a.example.org", "red", "exact"), ("A.Example.ORG", "red", "exact"), ("b.example.org", "blue", "wild"),
             ("x.y.example.org", "blue", "wild"), ("example.org", "refused", None), ("front", "refused", None),
             ("-", "refused", None)]
    for sni, who, route in cases:
        assert shops.ask("front", 9443, sni) == [who], sni
        if sni == "-":
            continue
        got = shops.said("tls", "front:9443", "-H", "Host: " + sni)
        chosen = [r["rule"] for r in got["rules"] if r["chosen"]]
        assert chosen == (["TLSRoute/default/%s rule 0" % route] if route else []), (sni, got)
    assert shops.answers("W1011") == refused + 3
    assert total(metrics(shops.me), "weft_connection_close_total", side="src", reason="NO_ROUTE") >= 3
    # The client's words make no series under a wildcard.
    assert shops.opened(sni="*.example.org", dst_service="blue") >= 2
    assert shops.opened(sni="a.example.org", dst_service="red") == 2
    assert shops.opened(sni="x.y.example.org") == 0
    for how in ("bytes", "records", "large"):
        done = shops.me.exec(PYTHON, shops.pieces_py, "front", "9443", "a.example.org", how, timeout=30)
        assert done.stdout.split() == ["red"], (how, done)
    assert int(done.stderr.split()[0]) > 16384 + 4096


def test_weights_and_a_backend_that_is_missing(shops, apply):
    apply(TLS_ROUTE % ("parts", "w.example.org", "{name: red, port: 9443, weight: 1}, {name: blue, port: 9443, "
                       "weight: 1}, {name: nobody, port: 1, weight: 1}, {name: front, port: 9443, weight: 0}"))
    wait_for(lambda: "red" in shops.ask("front", 9443, "w.example.org", 6), "the route is followed", 20)
    before = shops.answers("W1003")
    got = shops.ask("front", 9443, "w.example.org", 120)
    for who in ("red", "blue", "refused"):
        assert 15 <= got.count(who) <= 70, got
    assert got.count("front") == 0 and len(got) == 120
    assert shops.answers("W1003") == before + got.count("refused")


def test_other_bytes_by_tcp_route(shops, apply):
    apply(TCP_ROUTE % "{name: grey, port: 9000, weight: 3}, {name: green, port: 9000, weight: 1}")
    wait_for(lambda: set(shops.ask("front", 9443, "plain", 3)) <= {"grey", "green"}, "the route is followed", 20)
    got = shops.ask("front", 9443, "plain", 120)
    assert 60 <= got.count("grey") <= 110 and got.count("grey") + got.count("green") == 120, got
    said = shops.said("tcp", "front:9443")
    assert [b["service"] for b in said["backends"]] == ["default/grey:9000", "default/green:9000"]
    assert shops.ask("front", 9443, "front") == ["front"]  # TLS has no routes here
    apply(TLS_ROUTE % ("beside", "c.example.org", "{name: red, port: 9443}"))
    shops.until("red", "front", 9443, "c.example.org")
    assert shops.ask("front", 9443, "d.example.org") == ["refused"]
    assert shops.ask("front", 9443, "plain")[0] in ("grey", "green")
