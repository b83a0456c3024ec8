"""Programs that speak HTTP/2 in clear text with prior knowledge (curl, nghttp, h2load, httpx, node; nghttpd and nginx), on every way
through the mesh. Each test asks what the program would see without one."""
import hashlib
import os
import re
import shutil
import textwrap

import pytest

from places import PYTHON, WAYS, Ways
from traffic import metrics, total

MIB = 1 << 20
CURL = ["curl", "-sS", "--max-time", "40", "--http2-prior-knowledge"]

NGINX = """
daemon off; worker_processes 1; error_log stderr warn; pid {place}/pid;
events { worker_connections 512; }
http {
  access_log off; client_max_body_size 0; root %s;
  client_body_temp_path {place}/b; proxy_temp_path {place}/p; fastcgi_temp_path {place}/f;
  uwsgi_temp_path {place}/u; scgi_temp_path {place}/s;
  server { listen {port} http2; keepalive_requests 1000;
    location /hi { return 200 "hello"; }
    location /204 { add_header x-a b; return 204; }
    location /307 { return 307 /hi; } }
}
"""


@pytest.fixture(scope="module")
def ways(shared_mesh):
    w = Ways(shared_mesh)
    w.root = os.path.join(shared_mesh.dir, "root")
    os.mkdir(w.root)
    with open(w.root + "/index.html", "w") as f:
        f.write("<html>" + "".join('<img src="/%d.png">' % i for i in range(30)) + "</html>")
    for i in range(30):
        with open(w.root + "/%d.png" % i, "wb") as f:
            f.write(bytes([i]) * (i * 3000))
    w.big = os.urandom(20 * MIB)
    with open(w.root + "/big", "wb") as f:
        f.write(w.big)
    try:
        w.serve("ngx", ["/usr/sbin/nginx", "-p", "{place}", "-e", "stderr", "-c", "{place}/conf"], 8080, says=None,
                files={"conf": NGINX % w.root})
        w.serve("ngd", ["nghttpd", "--no-tls", "-d", w.root, "--trailer", "x-end: of it", "-m", "100", "{port}"], 8081, says=None)
        w.serve("up", ["nghttpd", "--no-tls", "-v", "--echo-upload", "-d", w.root, "{port}"], 8082, says=None)
        for way in WAYS:
            w.until(way, "ngx", [*CURL, "http://{host}:{port}/hi"], "hello")
            w.until(way, "ngd", [*CURL, "-I", "http://{host}:{port}/1.png"], "HTTP/2 200")
            w.until(way, "up", [*CURL, "-I", "http://{host}:{port}/1.png"], "HTTP/2 200")
        yield w
    finally:
        w.end()


def ask(ways, way, server, *argv, **kw):
    done = ways.run(way, server, list(argv), **kw)
    assert done.returncode == 0, done
    return done.stdout


each = pytest.mark.parametrize("way", WAYS)
on_both = pytest.mark.parametrize("server", ["ngx", "ngd"])


@each
def test_answers_without_content(ways, way):
    url = "http://{host}:{port}"
    code = [*CURL, "-o", "/dev/null", "-w", "%{http_code} %{size_download} %{http_version}"]
    assert ask(ways, way, "ngx", *code, url + "/204") == "204 0 2"
    assert ask(ways, way, "ngx", *code, "-I", url + "/9.png") == "200 0 2"
    head = ask(ways, way, "ngx", *CURL, "-I", url + "/9.png").lower()
    assert "content-length: 27000" in head
    etag = re.search(r"etag: (\S+)", head).group(1)
    assert ask(ways, way, "ngx", *code, "-H", "If-None-Match: " + etag, url + "/9.png") == "304 0 2"
    assert ask(ways, way, "ngx", *code, url + "/nothing")[:4] == "404 "
    assert ask(ways, way, "ngx", *CURL, "-o", "/dev/null", "-w", "%{redirect_url}", url + "/307").endswith("/hi")
    assert ask(ways, way, "ngx", *CURL, "-r", "100-199", url + "/9.png") == "\t" * 100
    # All on one connection (curl 7.88 cannot do that behind an answer without content): nothing is left for the next.
    got = ask(ways, way, "ngx", "nghttp", "-ns", *[url + "/" + p for p in ("204", "hi", "204?", "hi?", "nothing", "9.png")])
    assert sorted(re.findall(r"^ *\d+ .* (\d+) +\S+ /", got, re.M)) == ["200", "200", "200", "204", "204", "404"], got


@each
@on_both
def test_download(ways, way, server):
    got = ask(ways, way, server, "sh", "-c", " ".join(CURL) + " http://{host}:{port}/big | sha256sum")
    assert got.split()[0] == hashlib.sha256(ways.big).hexdigest()


@each
def test_upload(ways, way):
    """20 MB there and back at once, with and without a length."""
    for options in ("-T " + ways.root + "/big", "-T - < " + ways.root + "/big"):
        got = ask(ways, way, "up", "sh", "-c", " ".join(CURL) + " -X POST http://{host}:{port}/ " + options + " | sha256sum")
        assert got.split()[0] == hashlib.sha256(ways.big).hexdigest(), options


@each
def test_trailers(ways, way):
    got = ask(ways, way, "ngd", "nghttp", "-nv", "http://{host}:{port}/3.png")
    assert "x-end: of it" in got and "trailer: x-end" in got, got
    got = ask(ways, way, "up", "nghttp", "-v", "--no-dep", "-d", ways.root + "/5.png", "--trailer", "x-sum: %s" % way,
              "http://{host}:{port}/")
    assert ":status: 200" in got
    path = ways.outside["up"][1] if way == "plain" else ways.apps["up"][0].out
    with open(path, errors="replace") as f:
        assert "x-sum: %s\n" % way in re.sub(r"\x1b\[[0-9;]*m", "", f.read()), "the server got the trailer"


@each
@on_both
def test_nghttp(ways, way, server):
    """A page with its pictures, with priorities and without."""
    for options in (["-ans"], ["-ans", "--no-dep"], ["-ns", "-m", "50"], ["-ans", "-p", "1"], ["-ans", "--header-table-size=0"],
                    ["-ans", "-w", "20", "-W", "24"]):
        got = ask(ways, way, server, "nghttp", *options, "http://{host}:{port}/index.html")
        rows = [line.split() for line in got.splitlines() if re.match(r"^ *\d+ ", line)]
        assert [r[4] for r in rows] == ["200"] * (50 if "-m" in options else 31), (options, got)


@each
@on_both
def test_h2load(ways, way, server):
    """nginx sends its connections away after 1,000 requests each."""
    got = ask(ways, way, server, "h2load", "-n", "10000", "-c", "4", "-m", "100", "http://{host}:{port}/2.png")
    assert "10000 succeeded, 0 failed, 0 errored, 0 timeout" in got, got
    assert "status codes: 10000 2xx, 0 3xx, 0 4xx, 0 5xx" in got, got


HTTPX = textwrap.dedent('''
    import httpx, sys
    url = "http://%s:%s" % tuple(sys.argv[1:])
    with httpx.Client(http1=False, http2=True, timeout=20) as c:
        for i in range(30):
            a = c.get("%s/%d.png" % (url, i), headers={"Cookie": "a=1; b=2"})
            assert a.status_code == 200 and a.http_version == "HTTP/2" and a.content == bytes([i]) * (i * 3000)
        assert c.head(url + "/7.png").headers["content-length"] == "21000"
    print("fine")
''')


@each
@on_both
def test_httpx(ways, way, server):
    assert ask(ways, way, server, PYTHON, ways.mesh.python(HTTPX), "{host}", "{port}") == "fine\n"


# Measures the path as Go's gRPC does: a WINDOW_UPDATE and a PING for the first DATA after each acknowledgement.
PINGS = textwrap.dedent('''
    import socket, sys
    import h2.config, h2.connection, h2.events
    s = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=20)
    h = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    h.initiate_connection()
    h.send_headers(1, [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/big")], end_stream=True)
    s.sendall(h.data_to_send())
    got = pings = 0
    under_way = ended = False
    while not ended:
        data = s.recv(16384)
        assert data, "the connection ended after %d bytes and %d pings" % (got, pings)
        for e in h.receive_data(data):
            if isinstance(e, h2.events.DataReceived):
                got += len(e.data)
                h.acknowledge_received_data(e.flow_controlled_length, e.stream_id)
                if not under_way:
                    h.ping(b"measures")
                    pings, under_way = pings + 1, True
            elif isinstance(e, h2.events.PingAckReceived):
                under_way = False
            elif isinstance(e, h2.events.StreamEnded):
                ended = True
            else:
                assert not isinstance(e, (h2.events.ConnectionTerminated, h2.events.StreamReset)), (e, got, pings)
        s.sendall(h.data_to_send())
    print(got, pings)
''')


@each
def test_pings_that_measure_the_path(ways, way):
    got, pings = ask(ways, way, "ngd", PYTHON, ways.mesh.python(PINGS), "{host}", "{port}").split()
    assert int(got) == 20 * MIB and int(pings) > 150, (got, pings)


def test_nobody_was_taken_for_an_attacker(ways):
    for app in (ways.client, *[a for apps in ways.apps.values() for a in apps]):
        series = metrics(app)
        for reason in ("FLOOD", "BAD_PROTOCOL", "STALLED"):
            assert total(series, "weft_connection_close_total", reason=reason) == 0, (app.pod, reason)
