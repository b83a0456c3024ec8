"""limit.weft.io/app-connections: how many connections the proxies of a pod make to its application's port."""
import os
import socket
import threading
import time

import pytest

from linked import Link, Linked, served
from meshes import SLOW, wait_for
from proxies import Server, read_request, read_until

REQUEST = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"


class Rig:
    """An application that answers when the test says so, behind `workers` proxies with one memory of limits."""

    def __init__(self, most, workers=1, wait="300ms"):
        self.go = threading.Semaphore(0)
        self.asked = 0
        self.server = Server(self.handle)
        self.link = Link(ports=[served(self.server.port, connections_max=most)])
        self.memory = os.memfd_create("limits")
        os.ftruncate(self.memory, 1 << 20)
        self.proxies = [Linked(self.link, self.server.port, inbound=True, worker=w, limits=self.memory,
                               WEFT_FAILFAST_TIMEOUT=wait) for w in range(workers)]
        self.clients = []

    def handle(self, c, _):
        while True:
            read_request(c)
            self.asked += 1
            assert self.go.acquire(timeout=60)
            c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    def ask(self, worker=0, request=REQUEST):
        c = socket.create_connection(("127.0.0.1", self.proxies[worker].port), timeout=20 * SLOW)
        c.sendall(request)
        self.clients.append(c)
        return c

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for c in self.clients:
            c.close()
        for _ in range(100):
            self.go.release()
        codes = [p.stop() for p in self.proxies]
        self.link.close()
        self.server.close()
        os.close(self.memory)
        assert codes == [0] * len(codes)


@pytest.mark.asan
def test_who_finds_no_connection_is_told():
    with Rig(2) as r:
        held = [r.ask(), r.ask()]
        wait_for(lambda: r.asked == 2, "both requests came")
        head = read_until(r.ask(), b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503") and b"W7007" in head
        assert b"limit.weft.io/app-connections 2 of port" in head and b"connection: close" not in head.lower()
        assert r.server.accepted == 2
        r.go.release()
        r.go.release()
        for c in held:
            assert read_until(c, b"ok").startswith(b"HTTP/1.1 200")
        r.go.release()
        assert read_until(r.ask(), b"ok").startswith(b"HTTP/1.1 200")


def test_who_waits_gets_the_next_one():
    with Rig(1, wait="30s") as r:
        first = r.ask()
        wait_for(lambda: r.asked == 1, "the first request came")
        others = [r.ask() for _ in range(5)]
        time.sleep(0.2)
        assert r.asked == 1
        for _ in range(6):
            r.go.release()
        for c in [first, *others]:
            assert read_until(c, b"ok").startswith(b"HTTP/1.1 200")
        assert r.server.accepted == 1


@pytest.mark.asan
def test_workers_count_together():
    with Rig(2, workers=2) as r:
        r.ask(0)
        r.ask(0)
        wait_for(lambda: r.asked == 2, "both requests came")
        head = read_until(r.ask(1), b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503") and b"W7007" in head
        assert r.server.accepted == 2
        # the worker that holds them is killed: its connections are gone, and with the next generation its count
        r.proxies[0].process.kill()
        r.proxies[0].stop()
        r.proxies[0] = Linked(r.link, r.server.port, inbound=True, worker=0, limits=r.memory, WEFT_FAILFAST_TIMEOUT="300ms")
        for _ in range(3):
            r.go.release()
        assert read_until(r.ask(1), b"ok").startswith(b"HTTP/1.1 200")


def test_opaque_connections_are_refused():
    with Rig(1) as r:
        r.ask(request=b"\x01\x02 not HTTP\n")
        wait_for(lambda: r.server.accepted == 1, "the first connection is there")
        c = r.ask(request=b"\x01\x02 not HTTP\n")
        try:
            assert c.recv(1) == b""
        except ConnectionResetError:
            pass
        assert r.server.accepted == 1


def test_a_limit_for_connections_that_are_open():
    with Rig(0) as r:
        for _ in range(3):
            r.ask()
        wait_for(lambda: r.asked == 3, "all requests came")
        r.link.set_ports([served(r.server.port, connections_max=3)])

        # what comes before the word does holds one more connection each
        def refused():
            c = r.ask()
            c.settimeout(1 * SLOW)
            try:
                return b"W7007" in read_until(c, b"\r\n\r\n")
            except TimeoutError:
                return False
        wait_for(refused, "the limit is in force", 20)
