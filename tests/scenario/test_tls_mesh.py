"""TLS in a whole mesh: the vault made by the real supervisor, kills under traffic, renewals while requests run."""
import os
import re
import signal
import time

import pytest

from meshes import Mesh, wait_for

SERVER = r"""
import http.server, socketserver
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = b"hello from web"
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *a):
        pass
class S(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 128
S(("", 8080), H).serve_forever()
"""


def start(mesh):
    web = mesh.run("web", ["python3", mesh.python(SERVER)], ports=["8080"])
    client = mesh.client()
    wait_for(lambda: client.http("http://web:8080/").status == 200, "web serves")
    return web, client


def kill_tls(app):
    pid = app.status()["weft-tls"]["pid"]
    os.kill(pid, signal.SIGKILL)
    begin = time.monotonic()
    wait_for(lambda: app.status()["weft-tls"]["pid"] not in (0, pid) and
             app.status()["weft-tls"]["state"] == "ready", "weft-tls is back")
    return round((time.monotonic() - begin) * 1000)


def wrk(client, seconds):
    return client.popen("wrk", "-t1", "-c8", "-d%d" % seconds, "http://web:8080/", stdout=-1, text=True)


def check_clean(out):
    assert int(re.search(r"(\d+) requests in", out).group(1)) > 100, out
    assert "Socket errors" not in out and "Non-2xx" not in out, out


def test_weft_tls_killed_on_both_sides_under_traffic(mesh):
    web, client = start(mesh)
    maps = open("/proc/%d/maps" % web.status()["weft-tls"]["pid"]).read()
    print("vault: %s" % ("secret memory" if "secretmem" in maps else "plain memfd"))
    load = wrk(client, 5)
    time.sleep(1)
    times = [kill_tls(web), kill_tls(client), kill_tls(web)]
    print("weft-tls back after kill -9: %s ms" % times)
    check_clean(load.communicate(timeout=30)[0])
    assert "certificate taken from the vault" in web.log()
    # Handshakes work again: a proxy that is killed has to make new ones.
    os.kill(client.status()["weft-proxy.0"]["pid"], signal.SIGKILL)
    wait_for(lambda: client.http("http://web:8080/").status == 200, "new handshakes")


@pytest.fixture
def short_mesh():
    m = Mesh(env={"WEFT_CERTIFICATE_LIFETIME": "8s"})
    try:
        yield m.up()
    finally:
        m.down()


def test_renewals_under_traffic_and_an_authority_that_is_away(short_mesh):
    web, client = start(short_mesh)
    load = wrk(client, 14)
    begin = web.log().count("certificate in force")
    time.sleep(2)
    os.kill(short_mesh.status()["weft-authority"]["pid"], signal.SIGKILL)
    wait_for(lambda: web.log().count("certificate in force") >= begin + 2, "two renewals", 20)
    check_clean(load.communicate(timeout=40)[0])
    assert client.http("http://web:8080/").status == 200
