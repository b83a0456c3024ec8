"""HTTPLocalRateLimitPolicy at the server's side: totals over all workers, what a refusal says, changes while it runs."""
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from linked import Link, Linked, rate, served
from meshes import SLOW, Answer
from proxies import Server, read_request


def ok(c, _):
    while True:
        read_request(c)
        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


class Rig:
    """`workers` proxies before one application, with one memory of limits, as the supervisor hands it down."""

    def __init__(self, workers=1, rates=(), **more):
        self.server = Server(ok)
        self.link = Link(ports=[served(self.server.port, rates, **more)])
        self.memory = os.memfd_create("limits")
        os.ftruncate(self.memory, 1 << 20)
        self.proxies = [self.start(w) for w in range(workers)]

    def start(self, worker):
        return Linked(self.link, self.server.port, inbound=True, worker=worker, limits=self.memory)

    def set(self, rates):
        self.link.set_ports([served(self.server.port, rates)])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        codes = [p.stop() for p in self.proxies]
        self.link.close()
        self.server.close()
        os.close(self.memory)
        assert codes == [0] * len(codes)

    def ask(self, worker=0, *args):
        done = subprocess.run(["curl", "-sS", "-i", "-m", str(20 * SLOW), *args, self.proxies[worker].url()],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 0, done.stderr
        return Answer(done.stdout)

    def many(self, n, worker=0):
        """n requests on one connection; how many got 200 and how many 429, and how long it took."""
        begun = time.monotonic()
        done = subprocess.run(["curl", "-sS", "-m", str(60 * SLOW), "-o", "/dev/null", "-w", "%{http_code}\n",
                               self.proxies[worker].url("/[1-%d]" % n)], stdout=subprocess.PIPE, text=True)
        codes = done.stdout.split()
        assert len(codes) == n and set(codes) <= {"200", "429"}, codes
        return codes.count("200"), codes.count("429"), time.monotonic() - begun


@pytest.mark.asan
@pytest.mark.parametrize("version", ["--http1.0", "--http1.1", "--http2-prior-knowledge"])
def test_a_refusal(version):
    with Rig(rates=[rate(total=1)]) as r:
        answers = [r.ask(0, version) for _ in range(4)]
        refused = [a for a in answers if a.status == 429]
        # the application speaks HTTP/1 only: what is let in over HTTP/2 gets its refusal, not ours
        assert answers[0].status == (502 if "2" in version else 200) and refused
        a = refused[0]
        assert a.headers["retry-after"] == "1" and a.headers["weft-code"] == "W6002"
        assert "HTTPLocalRateLimitPolicy/default/web: total 1 per second" in a.headers["proxy-status"]
        assert "http_request_denied" in a.headers["proxy-status"]


def test_a_refusal_keeps_the_connection_and_reaches_nobody():
    with Rig(rates=[rate(total=1)]) as r:
        good, bad, _ = r.many(20)
        assert good >= 1 and bad >= 1
        assert r.server.accepted <= 1 + len(r.proxies)


def test_grpc_is_told_in_its_words():
    with Rig(rates=[rate(identity=1)]) as r:
        assert r.ask().status == 200
        channel = grpc.insecure_channel("127.0.0.1:%d" % r.proxies[0].port)
        with pytest.raises(grpc.RpcError) as e:
            for _ in range(50):  # the bucket is refilled once a second
                channel.unary_unary("/x.Y/z")(b"", timeout=20 * SLOW)
        channel.close()
        assert e.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED or "W6002" not in e.value.details()


@pytest.mark.asan
def test_the_total_of_two_workers():
    """A bucket of 50 that is refilled 50 times a second: both together get no more than that, and all of it."""
    with Rig(workers=2, rates=[rate(total=50)]) as r:
        begun = time.monotonic()
        with ThreadPoolExecutor(2) as pool:
            results = list(pool.map(lambda w: r.many(200, w), (0, 1)))
        took = time.monotonic() - begun
        good = sum(g for g, _, _ in results)
        assert 50 <= good <= 50 + 50 * took + 1, (results, took)


def test_a_killed_worker_takes_nothing_along():
    with Rig(workers=1, rates=[rate(total=1)]) as r:
        r.set([rate(total=2, policy="HTTPLocalRateLimitPolicy/default/slow")])
        while r.ask().status == 200:
            pass
        begun = time.monotonic()
        r.proxies[0].process.kill()
        r.proxies[0].stop()
        r.proxies[0] = r.start(0)
        good, bad, _ = r.many(10)
        assert good <= 2 * (time.monotonic() - begun) + 1, (good, bad)


def test_a_change_holds_at_once_and_resets_nothing():
    with Rig(rates=[rate(total=1)]) as r:
        while r.ask().status == 200:
            pass
        r.set([])
        end = time.monotonic() + 10 * SLOW
        while r.many(10)[1] > 0:  # until the word has come
            assert time.monotonic() < end
        assert r.many(300)[1] == 0
        r.set([rate(total=1)])
        while r.many(10)[1] == 0:
            assert time.monotonic() < end


def test_clients_without_identity_share_a_bucket():
    with Rig(rates=[rate(total=1000, identity=1, overrides=[(500, ["*.cluster.local"])])]) as r:
        a = [r.ask() for _ in range(4)]
        refused = [x for x in a if x.status == 429]
        assert refused and "identity 1 per second for all without identity" in refused[0].headers["proxy-status"]
