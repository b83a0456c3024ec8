"""WebSockets (python3-websockets at both ends) on every way through the mesh, alone and behind nginx as a reverse proxy. What is
said is in ws_app.py. An upgrade is HTTP/1; between two pods it travels as it is, on a connection of its own."""
import os
from concurrent import futures

import pytest

from places import PYTHON, WAYS, Ways

pytest.importorskip("websockets")

HERE = os.path.dirname(os.path.abspath(__file__))
TALKS = ["echo", "ping", "close", "parallel", "abrupt", "stream"]

NGINX = """
daemon off; worker_processes 1; error_log stderr warn; pid {place}/pid;
events { worker_connections 1024; }
http {
  access_log off; client_body_temp_path {place}/b; proxy_temp_path {place}/p; fastcgi_temp_path {place}/f;
  uwsgi_temp_path {place}/u; scgi_temp_path {place}/s;
  server { listen {port}; listen [::]:{port};
    location / { proxy_pass http://%s; proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;
                 proxy_set_header Connection upgrade; proxy_buffering off; } }
}
"""


@pytest.fixture(scope="module")
def ways(shared_mesh):
    w = Ways(shared_mesh)
    with open(os.path.join(HERE, "ws_app.py")) as f:
        w.program = shared_mesh.python(f.read())
    try:
        w.serve("chat", [PYTHON, w.program, "serve", "{port}"], 8080)
        # A meshed nginx with the meshed chat behind it: every hop between them is the mesh's.
        w.serve("door", ["/usr/sbin/nginx", "-p", "{place}", "-e", "stderr", "-c", "{place}/conf"], 8081, says=None,
                where=("meshed", "outside"), files={"conf": NGINX % "chat:8080"})
        w.until("meshed", "door", ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "http://{host}:{port}/"], "426")
        yield w
    finally:
        w.end()


def talk(ways, way, server, name):
    done = ways.run(way, server, [PYTHON, ways.program, "talk", "{host}", "{port}", name], timeout=60)
    assert done.stdout == "fine\n", (done.stdout, done.stderr[-3000:])


@pytest.fixture(scope="module")
def begun(ways):
    """Silence takes its time: all of it at once, beside the other tests."""
    with futures.ThreadPoolExecutor(8) as pool:
        yield {way: pool.submit(talk, ways, way, "chat", "push") for way in WAYS}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", TALKS)
def test_talks(ways, begun, name, way):
    talk(ways, way, "chat", name)


@pytest.mark.parametrize("way", ["meshed", "outside"])
@pytest.mark.parametrize("name", ["ping", "close", "parallel", "abrupt", "push", "echo"])
def test_behind_nginx(ways, name, way):
    talk(ways, way, "door", name)


@pytest.mark.parametrize("way", WAYS)
def test_the_server_speaks_after_silence(begun, way):
    begun[way].result()
