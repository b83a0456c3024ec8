"""Abuse from both sides of a mesh: the processes live, nobody else notices, nothing is left behind."""
import json
import os
import resource
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import abuse
from meshes import SLOW, wait_for
from proxies import Proxy, Server, read_request

pytestmark = pytest.mark.asan
PROGRAM = abuse.__file__

SERVER = r'''
import socket, struct, threading

def serve_one(c):
    data = b""
    while True:
        while b"\r\n\r\n" not in data:
            piece = c.recv(65536)
            if not piece:
                return
            data += piece
        head, data = data.split(b"\r\n\r\n", 1)
        if b"chunked" in head.lower():
            while b"\r\n0\r\n" not in data or not data.endswith(b"\r\n\r\n"):
                piece = c.recv(65536)
                if not piece:
                    return
                data += piece
            data = b""
        path = head.split()[1]
        if path == b"/big":
            c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 16000000\r\n\r\n")
            for _ in range(250):
                c.sendall(b"z" * 64000)
        elif path.startswith(b"/cut"):
            k = int(path[4:])
            c.sendall((b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\nX-A: b\r\n\r\n" + b"q" * 20)[:k])
            if k % 2:
                c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
        else:
            c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

def run(c):
    try:
        serve_one(c)
    except (OSError, ValueError, IndexError):
        pass
    finally:
        c.close()

s = socket.socket(socket.AF_INET6)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("::", 8080))
s.listen(1024)
while True:
    c, _ = s.accept()
    threading.Thread(target=run, args=(c,), daemon=True).start()
'''

WORDS = ("ERROR: AddressSanitizer", "LeakSanitizer", "runtime error:", "bug condition", "killed by signal")


class Target:
    """The two pods, their proxies, and both doors: the client's outbound one and the server's inbound one."""

    def __init__(self, mesh):
        self.mesh = mesh
        self.web = mesh.run("web", [sys.executable, mesh.python(SERVER)], ports=["8080"])
        self.client = mesh.client()
        wait_for(lambda: self.client.exec("curl", "-s", "-m", "5", "http://web:8080/").stdout == "ok", "web serves")
        self.ip = subprocess.run(["nsenter", "-t", str(self.web.pid), "-n", "hostname", "-I"], text=True,
                                 stdout=subprocess.PIPE, check=True).stdout.split()[0]
        with open(os.path.join(mesh.state_dir, "hosts")) as f:
            self.service = next(w[0] for w in map(str.split, f) if "web" in w[1:] and "." in w[0])
        self.pids = self.proxies()

    def proxies(self):
        return [app.status()["weft-proxy.0"]["pid"] for app in (self.web, self.client)]

    def attack(self, name, door="out", port=8080, host=None, args=()):
        """From inside the client's pod ("out") or from nowhere ("in")."""
        host = host or (self.service if door == "out" else self.ip)
        command = [sys.executable, PROGRAM, name, host, str(port), *args]
        if door == "out":
            command = ["nsenter", "-t", str(self.client.pid), "-n", "--"] + command
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60 * SLOW)
        assert done.returncode == 0, done.stderr
        self.check()
        return json.loads(done.stdout)

    def check(self):
        begun = time.monotonic()
        got = self.client.exec("curl", "-s", "-m", "10", "http://web:8080/")
        assert got.stdout == "ok", (got, self.web.log()[-2000:], self.client.log()[-2000:])
        assert time.monotonic() - begun < 3 * SLOW
        for app in (self.web, self.client):
            log = app.log()
            assert not any(w in log for w in WORDS), log[-4000:]
        assert self.proxies() == self.pids


@pytest.fixture(scope="module")
def target(shared_mesh):
    return Target(shared_mesh)


def test_floods(target):
    """Each on a connection of its own, which the proxy ends."""
    for door in ("out", "in"):
        for name in abuse.FLOODS:
            got = target.attack(name, door)
            if name != "streams":  # requests, if many: the ones over the limit are refused
                assert got["error"] or got["end"] != "TimeoutError", (door, name, got)


def test_leaving_at_every_byte(target):
    for door in ("out", "in"):
        assert target.attack("resets", door)["answered"] == 1


def test_answers_that_break_off_at_every_byte(target):
    for door in ("out", "in"):
        got = target.attack("cuts", door)
        assert set(got) <= {"502", "cut", "whole", "none"}, got  # none: closed without a byte
        assert got["502"] > 40 and 5 <= got["whole"] <= 10, got


def test_garbage_on_every_port(target):
    for port in (8080, 4140, 4143, 4191):
        target.attack("garbage", "in", port)
    for port in (4140, 4143, 4191):
        target.attack("garbage", "out", port, "127.0.0.1")
    bridge = target.mesh.net.split("/")[0].rsplit(".", 1)[0] + ".1"
    for port in (8086, 8087, 8088, 8089):
        target.attack("garbage", "in", port, bridge)
    assert all(p["restarts"] == 0 for p in target.mesh.status().values()), target.mesh.status()


def test_many_short_connections(target):
    for door in ("out", "in"):
        assert target.attack("short", door)["failed"] == 0


def test_pipelined(target):
    for door in ("out", "in"):
        assert target.attack("pipelined", door) == {"answers": 64, "end": "end"}


def test_who_reads_nothing_costs_little(target):
    def rss():
        total = 0
        for pid in target.pids:
            with open("/proc/%d/status" % pid) as f:
                total += int(next(line for line in f if line.startswith("VmRSS")).split()[1])
        return total
    target.attack("deaf")
    before = rss()
    for _ in range(3):
        target.attack("deaf")
    assert rss() - before < 30000 * SLOW, (before, rss())


def test_who_reads_slowly_gets_everything(target):
    with ThreadPoolExecutor() as both:
        for got in both.map(lambda door: target.attack("slow", door), ("out", "in")):
            assert got == {"bytes": 16000000, "end": "end"}


def test_transport_header_needs_a_certificate_and_the_inbound_port(target):
    for port in (8080, 4143):
        got = target.attack("transport", "in", port, args=["web.default.serviceaccount.identity.weft.cluster.local"])
        assert got["bytes"] == 0 and got["end"] != "TimeoutError", (port, got)


def test_out_of_file_descriptors():
    """Connections wait or are refused, the process lives, and goes on when there is room again."""
    def serve(c, _):
        while True:
            try:
                read_request(c)
            except AssertionError:
                return
            c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    server = Server(serve)
    proxy = Proxy(server.port)
    try:
        used = len(os.listdir("/proc/%d/fd" % proxy.process.pid))
        resource.prlimit(proxy.process.pid, resource.RLIMIT_NOFILE, (used + 20, used + 20))
        some = []
        for _ in range(60):
            s = proxy.connect()
            s.sendall(abuse.GET)
            some.append(s)
        wait_for(lambda: "accepting paused" in proxy.log(), "the listener pauses")
        some[0].settimeout(5 * SLOW)
        assert some[0].recv(100).startswith(b"HTTP/1.1 ")
        for s in some:
            s.close()

        def answers():
            with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as s:
                s.sendall(abuse.GET)
                return s.recv(100).startswith(b"HTTP/1.1 200")
        wait_for(answers, "requests after it", 10)
    finally:
        code = proxy.stop()
        server.close()
    assert code == 0
