"""One cheap request of every client on every way, so that a combination that nobody covers is seen."""
import pytest

from places import PYTHON, WAYS, Ways

URL = "http://{host}:{port}/"
ASYNC = """
import aiohttp, asyncio, sys
async def main():
    async with aiohttp.ClientSession() as s, s.get(sys.argv[1]) as r:
        print(r.status)
asyncio.run(main())
"""
CLIENTS = {  # client: (server, command, what it prints)
    "curl": ("web", ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", URL], "200"),
    "http.client": ("web", [PYTHON, "-c", "import http.client,sys; c = http.client.HTTPConnection(sys.argv[1], timeout=10); "
                            "c.request('GET', '/'); print(c.getresponse().status)", "{host}:{port}"], "200"),
    "httpx": ("web", [PYTHON, "-c", "import httpx,sys; print(httpx.get(sys.argv[1]).status_code)", URL], "200"),
    "aiohttp": ("web", [PYTHON, "-c", ASYNC, URL], "200"),
    "redis-cli": ("cache", ["redis-cli", "-h", "{host}", "-p", "{port}", "ping"], "PONG"),
}


@pytest.fixture(scope="module")
def ways(shared_mesh):
    w = Ways(shared_mesh)
    try:
        w.serve("web", [PYTHON, "-u", "-m", "http.server", "--directory", "{place}", "{port}"], 8080, says="Serving")
        w.serve("cache", ["redis-server", "--save", "", "--protected-mode", "no", "--dir", "{place}", "--port", "{port}"], 6379,
                says="Ready to accept")
        yield w
    finally:
        w.end()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("client", CLIENTS)
def test_one(ways, client, way):
    server, argv, want = CLIENTS[client]
    ways.until(way, server, argv, want, seconds=10)
