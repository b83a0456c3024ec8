"""Faults that a rule injects: failures and delays, by share, in the order of the manifest."""
import socket
import struct
import subprocess
import time

import pytest

from linked import DELAY, FAIL, Link, Linked, destination, filter_of, rule
from meshes import SLOW, Answer
from proxies import Server, read_request


def ok(c, _):
    while True:
        read_request(c)
        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


class Rig:
    def __init__(self, *filters, **limits):
        self.server = Server(ok)
        self.link = Link(destination([rule(filters=filters, **limits)], [self.server.port]))
        self.proxy = Linked(self.link, self.server.port)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        code = self.proxy.stop()
        self.link.close()
        self.server.close()
        assert code == 0

    def ask(self, *args):
        done = subprocess.run(["curl", "-sS", "-i", "-m", str(20 * SLOW), *args, self.proxy.url()],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        return Answer(done.stdout)

    def codes(self, n):
        done = subprocess.run(["curl", "-sS", "-m", str(60 * SLOW), "-o", "/dev/null", "-w", "%{http_code}\n",
                               self.proxy.url("/[1-%d]" % n)], stdout=subprocess.PIPE, text=True)
        return done.stdout.split()


@pytest.mark.asan
def test_a_failure_for_all():
    with Rig(filter_of(FAIL, status=418, share_ppm=1000000)) as r:
        a = r.ask()
        assert a.status == 418 and a.headers["weft-code"] == "W1008"
        assert "HTTPRoute/default/web rule 0: failure injected" in a.headers["proxy-status"]
        assert r.codes(50) == ["418"] * 50
        assert r.server.accepted == 0
        r.link.set_view(destination([rule()], [r.server.port]))
        end = time.monotonic() + 10 * SLOW
        while r.ask().status != 200:
            assert time.monotonic() < end
        assert r.codes(50) == ["200"] * 50


def test_a_failure_for_half():
    """400 throws of a fair coin: below 100 or above 300 is not chance."""
    with Rig(filter_of(FAIL, status=503, share_ppm=500000)) as r:
        codes = r.codes(400)
        assert set(codes) == {"200", "503"} and 100 < codes.count("503") < 300


@pytest.mark.parametrize("http,grpc_status,want", [(503, 0, "14"), (404, 0, "12"), (500, 0, "2"), (0, 8, "8"), (503, 7, "7")])
def test_grpc_failures(http, grpc_status, want):
    with Rig(filter_of(FAIL, status=http, grpc_status=grpc_status)) as r:
        a = r.ask("--http2-prior-knowledge", "-X", "POST", "-H", "content-type: application/grpc", "-H", "te: trailers")
        assert a.headers["grpc-status"] == want, a


@pytest.mark.asan
def test_a_delay():
    with Rig(filter_of(DELAY, delay_ms=300, jitter_ms=50)) as r:
        begun = time.monotonic()
        assert r.ask().status == 200
        assert time.monotonic() - begun >= 0.3


def test_a_delay_with_an_upload():
    """What the client sends meanwhile is kept and follows."""
    with Rig(filter_of(DELAY, delay_ms=200)) as r:
        assert r.ask("--data-binary", "x" * 100000, "-H", "Expect:").status == 200


def test_a_delay_and_then_a_failure():
    with Rig(filter_of(DELAY, delay_ms=200), filter_of(FAIL, status=503)) as r:
        begun = time.monotonic()
        assert r.ask().status == 503
        assert time.monotonic() - begun >= 0.2
    with Rig(filter_of(FAIL, status=503), filter_of(DELAY, delay_ms=60000)) as r:
        assert r.ask().status == 503


def test_a_delay_counts_toward_the_limit():
    with Rig(filter_of(DELAY, delay_ms=600000), request_ms=200) as r:
        a = r.ask()
        assert a.status == 504 and a.headers["weft-code"] == "W3002"
        assert r.server.accepted == 0


def test_a_client_that_goes_during_a_delay():
    with Rig(filter_of(DELAY, delay_ms=600000)) as r:
        for _ in range(20):
            c = socket.create_connection(("127.0.0.1", r.proxy.port))
            c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            c.sendall(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
            time.sleep(0.02)
            c.close()
    # the rig's end drains: nothing may be left waiting
