"""The feed, end to end with the real processes: weft-telemetry (a pod) -> weft-collector -> a subscriber.

The proxy is played by the test: it sends `series` messages over telemetry.sock, as docs/messages.md describes them.
Everything is on loopback, in a temporary directory, and ends with the test.
"""
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import time
import urllib.error
import urllib.request

import msgpack
import pytest
import zmq

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("WEFT_BUILD", os.path.join(ROOT, "build"))
BIN = os.path.join(BUILD, "bin")

SERIES, SERIES_ALL, EVENT, STATE = 0x0601, 0x0602, 0x0603, 0x0604
REQUEST_TOTAL, RESPONSE_TOTAL, LATENCY, OPEN_NOW = 0, 1, 2, 4

OUT = 'direction="outbound",authority="web:80",tls="true",server_id="web.default.serviceaccount.identity.weft.cluster.local",' \
      'dst_namespace="default",dst_service="web"'


def free_ports(n):
    socks = [socket.socket() for _ in range(n)]
    for s in socks:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in socks]
    for s in socks:
        s.close()
    return ports


def until(what, seconds=10):
    """Waits for what() to be true; the processes are real, so there is nothing to be told by."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        got = what()
        if got:
            return got
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {what}")


class World:
    """A collector, and pods as they are asked for."""

    def __init__(self, path):
        self.path = str(path)
        self.state = os.path.join(self.path, "state")
        self.ctx = zmq.Context()
        self.processes = []
        out = subprocess.check_output([os.path.join(BUILD, "tests", "feed-state"), self.state, "client", "other"])
        self.keys = json.loads(out)
        self.feed_port, self.pods_port = free_ports(2)
        self.collector = None

    def start(self, name, env, fds=(), lifeline=None):
        log = open(os.path.join(self.path, f"{name}.log"), "ab")
        e = {"PATH": "/usr/bin:/bin", "WEFT_LOG": "debug", **env}
        for k in ("ASAN_OPTIONS", "UBSAN_OPTIONS"):
            if k in os.environ:
                e[k] = os.environ[k]
        p = subprocess.Popen([os.path.join(BIN, name)], env=e, stdout=log, stderr=log, pass_fds=fds)
        log.close()
        self.processes.append(p)
        return p

    def log_of(self, name):
        with open(os.path.join(self.path, f"{name}.log"), errors="replace") as f:
            return f.read()

    def start_collector(self):
        before = self.log_of("weft-collector").count("collector serves") if self.collector else 0
        self.collector = self.start("weft-collector", {
            "WEFT_STATE_DIR": self.state, "WEFT_RUN_DIR": self.path, "WEFT_LISTEN_ADDRESS": "127.0.0.1",
            "WEFT_FEED_PORT": str(self.feed_port), "WEFT_PODS_PORT": str(self.pods_port)})
        until(lambda: self.log_of("weft-collector").count("collector serves") > before)
        return self.collector

    def subscriber(self, topic, key=None):
        s = self.ctx.socket(zmq.SUB)
        s.linger = 0
        if key is not None:
            s.curve_publickey = key["public_key"].encode()
            s.curve_secretkey = key["secret_key"].encode()
            s.curve_serverkey = self.keys["server_key"].encode()
        s.connect(f"tcp://127.0.0.1:{self.feed_port}")
        s.subscribe(topic)
        return s

    def db(self):
        return sqlite3.connect(f"file:{self.state}/collector/telemetry.db?mode=ro", uri=True)

    def edge(self, sql="sum(requests),sum(successes),sum(failures),sum(mtls_requests)"):
        with self.db() as db:
            return db.execute(f"SELECT {sql} FROM mesh_edges WHERE width_s=3600 AND source='client' AND service='web' "
                              "AND direction='outbound'").fetchone()

    def done(self):
        for p in self.processes:
            if p.poll() is None:
                p.send_signal(signal.SIGTERM)
        codes = []
        for p in self.processes:
            try:
                codes.append(p.wait(10))
            except subprocess.TimeoutExpired:
                p.kill()
                codes.append(p.wait())
        self.ctx.destroy(linger=0)
        return codes


class Pod:
    """weft-telemetry of one pod, and the test as its proxy."""

    def __init__(self, world, name, incarnation=1):
        self.world, self.name, self.incarnation = world, name, incarnation
        self.run = os.path.join(world.path, f"run-{name}-{incarnation}")
        os.mkdir(self.run, 0o700)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.admin_port = self.listener.getsockname()[1]
        self.proxy = None
        self.start()

    def start(self):
        fd = self.listener.fileno()
        self.process = self.world.start("weft-telemetry", {
            "WEFT_RUN_DIR": self.run, "WEFT_STATE_DIR": os.path.join(self.world.state, "pods", self.name),
            "WEFT_POD": self.name, "WEFT_WORKLOAD": self.name, "WEFT_SERVICE_ACCOUNT": self.name,
            "WEFT_SERVES": "api:8080/http1", "WEFT_INCARNATION": str(self.incarnation),
            "WEFT_COLLECTOR": f"127.0.0.1:{self.world.pods_port}",
            "WEFT_BROKER_KEY": self.world.keys["server_key"], "WEFT_FDS": f"admin={fd}"}, fds=(fd,))
        until(lambda: os.path.exists(f"{self.run}/telemetry.sock"))
        if self.proxy is None:
            self.proxy = self.world.ctx.socket(zmq.DEALER)
            self.proxy.linger = 0
            self.proxy.connect(f"ipc://{self.run}/telemetry.sock")

    def tell(self, *message):
        self.proxy.send(msgpack.packb(list(message)))

    def series(self, *series, is_all=False):
        """(slot, family, labels, [numbers])"""
        self.tell(SERIES, 1, "weft-proxy-0", self.incarnation, is_all,
                  [[slot, family, labels, [[v] for v in values]] for slot, family, labels, values in series])

    def requests(self, good, bad=0, is_all=False):
        status = OUT + ',classification="{}",status_code="{}"'
        self.series((0, REQUEST_TOTAL, OUT, [good + bad]),
                    (1, RESPONSE_TOTAL, status.format("success", 200), [good]),
                    (2, RESPONSE_TOTAL, status.format("failure", 500), [bad]),
                    (3, LATENCY, OUT + ',status_code="200"', [0, good + bad] + [0] * 24 + [1500 * (good + bad)]),
                    (4, OPEN_NOW, 'direction="outbound",peer="dst"', [2]), is_all=is_all)

    def get(self, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}{path}", timeout=5) as r:
                return r.status, r.read().decode()
        except urllib.error.HTTPError as e:
            return e.code, e.read().decode()


@pytest.fixture
def world(tmp_path):
    w = World(tmp_path)
    w.start_collector()
    yield w
    codes = w.done()
    assert all(c in (0, -signal.SIGKILL) for c in codes), f"exit codes {codes}"
    for name in ("weft-collector", "weft-telemetry"):
        if os.path.exists(os.path.join(w.path, f"{name}.log")):
            log = w.log_of(name)
            assert "missed an edge" not in log and "AddressSanitizer" not in log and "runtime error" not in log


def receive(sub, seconds=10):
    assert sub.poll(seconds * 1000), "nothing came"
    topic, body = sub.recv().split(b"\0", 1)
    return topic.decode(), msgpack.unpackb(body)


def receive_series(sub, name, value, seconds=10):
    """The first message in which the series has the value."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        topic, m = receive(sub, seconds)
        for s in m["series"]:
            if s["name"] == name and s.get("value", s.get("count")) == value:
                return topic, m, s
    raise AssertionError(f"{name}={value} did not come")


@pytest.mark.asan
def test_a_subscriber_sees_a_pods_numbers(world):
    pod = Pod(world, "client")
    sub = world.subscriber(b"metrics/", world.keys["feed"])
    pod.requests(7, 1)
    topic, m, s = receive_series(sub, "request_total", 8)
    assert topic == "metrics/default/client/client"
    assert (m["v"], m["ns"], m["pod"], m["workload"], m["incarnation"]) == (1, "default", "client", "client", 1)
    assert m["serves"] == [["api", 8080]]
    assert m["status"]["connections"] == 2
    assert s["labels"]["dst_service"] == "web" and s["labels"]["tls"] == "true" and s["process"] == "weft-proxy-0"
    latency = [s for s in m["series"] if s["name"] == "response_latency_ms"][0]
    assert latency["buckets"] == [[2, 8]] and latency["count"] == 8 and latency["sum_us"] == 12000
    # Cumulative, and only what changed.
    pod.requests(9, 1)
    _, m, _ = receive_series(sub, "request_total", 10)
    if not m["is_all"]:
        assert {s["name"] for s in m["series"]} == {"request_total", "response_total", "response_latency_ms"}


@pytest.mark.asan
def test_the_ten_line_subscriber_of_the_docs(world):
    """What docs/feed.md prints is what runs here."""
    text = open(os.path.join(ROOT, "docs", "feed.md")).read()
    code = re.search(r"```python\n(.*?)```", text, re.S).group(1)
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    key = {**world.keys["feed"], "server_key": world.keys["server_key"],
           "endpoint": f"tcp://127.0.0.1:{world.feed_port}"}
    with open(os.path.join(world.path, "ops.json"), "w") as f:
        json.dump(key, f)
    pod = Pod(world, "client")
    pod.requests(3)
    p = subprocess.Popen(["/usr/bin/python3", "-u", "-c", code, os.path.join(world.path, "ops.json")],
                         stdout=subprocess.PIPE, text=True)
    try:
        lines = [p.stdout.readline()]
        while "request_total" not in lines[-1]:
            lines.append(p.stdout.readline())
        assert "default/client" in lines[-1] and "3" in lines[-1].split()
    finally:
        p.kill()
        p.wait()


def test_who_has_no_key_gets_nothing(world):
    pod = Pod(world, "client")
    good = world.subscriber(b"metrics/", world.keys["feed"])
    pub, sec = zmq.curve_keypair()
    stranger = world.subscriber(b"metrics/", {"public_key": pub.decode(), "secret_key": sec.decode()})
    plain = world.subscriber(b"metrics/")
    pods_key = world.subscriber(b"metrics/", world.keys["pods"]["client"])
    pod.requests(1)
    for i in range(2, 5):  # three rounds that the good one sees
        receive_series(good, "request_total", i - 1)
        pod.requests(i)
    for s in (stranger, plain, pods_key):
        assert not s.poll(0)
    assert world.log_of("weft-collector").count("peer refused") >= 2


def test_a_pod_speaks_for_itself_only(world):
    """Frames of one pod's key that name another pod are dropped; so are bytes that are no message."""
    sub = world.subscriber(b"", world.keys["feed"])
    forger = world.ctx.socket(zmq.XPUB)
    forger.linger = 0
    forger.curve_publickey = world.keys["pods"]["other"]["public_key"].encode()
    forger.curve_secretkey = world.keys["pods"]["other"]["secret_key"].encode()
    forger.curve_serverkey = world.keys["server_key"].encode()
    forger.connect(f"tcp://127.0.0.1:{world.pods_port}")
    subscriptions = {forger.recv() for _ in range(3)}
    assert subscriptions == {b"\1", b"\1metrics/", b"\1event/"}
    head = {"v": 1, "ns": "default", "pod": "client", "workload": "client", "incarnation": 1, "series": []}
    mine = {**head, "pod": "other", "workload": "other"}
    bad = [(b"metrics/default/client/client", msgpack.packb(head)),
           (b"metrics/default/other/other", msgpack.packb(head)),
           (b"metrics/default/other", msgpack.packb(mine)),
           (b"metrics/default/other/other", msgpack.packb(mine)[:-1]),
           (b"metrics/default/other/other", msgpack.packb(mine) + b"x"),
           (b"metrics/default/other/other", msgpack.packb({**mine, "v": 2})),
           (b"metrics/default/other/other", msgpack.packb({**mine, "series": [{"name": 5}]})),
           (b"metrics/default/other/other", b"\xdd\xff\xff\xff\xff"),
           (b"metrics/default/other/other", b""),
           (b"event/X/default/client", msgpack.packb({**head, "kind": "X"})),
           (b"nothing/default/other/other", msgpack.packb(mine))]
    for topic, body in bad:
        forger.send(topic + b"\0" + body)
    forger.send(b"metrics/default/other/other\0" + msgpack.packb({**mine, "seq": 77}))
    end = None
    seen = []
    while end != 77:
        topic, m = receive(sub)
        seen.append((topic, m.get("pod")))
        end = m.get("seq")
    assert set(seen) == {("metrics/default/other/other", "other")}
    assert until(lambda: world.log_of("weft-collector").count("frame dropped") >= 1)
    assert world.collector.poll() is None


@pytest.mark.asan
def test_counts_survive_every_restart(world):
    """Rollups hold each request once: over a lost collector, a lost telemetry and a pod that starts anew."""
    pod = Pod(world, "client")
    pod.requests(100, 10)
    until(lambda: world.edge()[0] == 110)
    assert world.edge() == (110, 100, 10, 110)
    # The collector is killed; the pod counts on.
    world.collector.kill()
    world.collector.wait()
    pod.requests(150, 10)
    world.start_collector()
    until(lambda: world.edge()[0] == 160)
    # Telemetry is killed and asks the proxy for everything.
    while pod.proxy.poll(0):
        pod.proxy.recv()
    pod.process.kill()
    pod.process.wait()
    pod.start()

    def asked():
        pod.requests(150, 11)
        return pod.proxy.poll(200) and msgpack.unpackb(pod.proxy.recv())[0] == SERIES_ALL

    until(asked)
    pod.requests(150, 11, is_all=True)
    until(lambda: world.edge()[0] == 161)
    # The pod starts anew: other incarnation, values from 0.
    pod.process.send_signal(signal.SIGTERM)
    assert pod.process.wait(10) == 0
    pod = Pod(world, "client", incarnation=2)
    pod.requests(5, 0)
    until(lambda: world.edge()[0] == 166)
    assert world.edge() == (166, 155, 11, 166)
    with world.db() as db:
        assert db.execute("SELECT sum(requests) FROM mesh_golden WHERE width_s=10 AND service='web'").fetchone() == (166,)
        p50 = db.execute("SELECT p50_ms FROM mesh_golden WHERE width_s=3600 AND service='web'").fetchone()[0]
        assert 1 < p50 <= 2
        row = db.execute("SELECT workload,connections,is_ready FROM mesh_pods WHERE pod='default/client'").fetchone()
        assert row == ("client", 2, 0)


def test_events_reach_subscribers_and_the_database(world):
    sub = world.subscriber(b"event/CERTIFICATE_RENEWED/", world.keys["feed"])
    pod = Pod(world, "client")
    now = int(time.time() * 1000)
    pod.tell(EVENT, 1, now, "CERTIFICATE_RENEWED", "client", "all is well")
    pod.tell(EVENT, 1, now, "not a kind/", "client", "refused")
    topic, m = receive(sub)
    assert topic == "event/CERTIFICATE_RENEWED/default/client"
    assert (m["kind"], m["pod"], m["message"], m["at_ms"]) == ("CERTIFICATE_RENEWED", "client", "all is well", now)

    def rows():
        with world.db() as db:
            return db.execute("SELECT kind,pod,at_ms FROM mesh_pod_events").fetchall()

    assert until(rows) == [("CERTIFICATE_RENEWED", "default/client", now)]


@pytest.mark.asan
def test_admin_port(world):
    pod = Pod(world, "client")
    assert pod.get("/live") == (200, "live\n")
    code, why = pod.get("/ready")
    assert code == 503 and "certificate" in why and "broker" in why and "proxy" in why
    end = int(time.time() * 1000) + 3600000
    pod.tell(STATE, 1, "certificate", True, "ok", end)
    pod.tell(STATE, 1, "snapshot", True, "ok", 0)
    until(lambda: "certificate" not in pod.get("/ready")[1])
    pod.tell(STATE, 1, "proxy", True, "ok", 0)
    until(lambda: pod.get("/ready") == (200, "ready\n"))
    # A renewal that failed is no reason yet: the certificate in hand still holds.
    pod.tell(STATE, 1, "certificate", False, "the renewal failed", end)
    pod.tell(STATE, 1, "proxy", False, "draining", 0)
    until(lambda: pod.get("/ready")[0] == 503)
    assert "certificate" not in pod.get("/ready")[1]
    pod.tell(STATE, 1, "proxy", True, "ok", 0)
    until(lambda: pod.get("/ready") == (200, "ready\n"))
    end = int(time.time() * 1000) - 1000
    pod.tell(STATE, 1, "certificate", False, "it has expired", end)
    until(lambda: pod.get("/ready")[0] == 503)
    assert "it has expired" in pod.get("/ready")[1]
    pod.requests(4, 1)
    text = until(lambda: "request_total{" in pod.get("/metrics")[1] and pod.get("/metrics")[1])
    assert text.endswith("# EOF\n")
    assert f"request_total{{{OUT}}} 5\n" in text
    assert f'response_latency_ms_bucket{{{OUT},status_code="200",le="1"}} 0\n' in text
    assert f'response_latency_ms_bucket{{{OUT},status_code="200",le="2"}} 5\n' in text
    assert f'response_latency_ms_bucket{{{OUT},status_code="200",le="+Inf"}} 5\n' in text
    assert f'response_latency_ms_sum{{{OUT},status_code="200"}} 7.500\n' in text
    assert f"control_identity_cert_expiration_timestamp_seconds {end // 1000}\n" in text
    assert "weft_broker_connected 0\n" in text
    for line in text.splitlines():
        assert line.startswith("#") or re.fullmatch(r"[a-z_]+(\{.*\})? -?[0-9.]+", line), line
    assert pod.get("/other")[0] == 404


def test_admin_port_and_strangers(world):
    """Bad requests get an answer, slow ones lose their place, and the page is served all the while."""
    pod = Pod(world, "client")

    def ask(raw):
        with socket.create_connection(("127.0.0.1", pod.admin_port), timeout=5) as s:
            s.sendall(raw)
            got = b""
            while chunk := s.recv(65536):
                got += chunk
            return got.split(b"\r\n", 1)[0]

    assert ask(b"POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello") == b"HTTP/1.1 405 Method Not Allowed"
    assert ask(b"nonsense\r\n\r\n") == b"HTTP/1.1 400 Bad Request"
    assert ask(b"GET http://x/ HTTP/1.1\r\n\r\n") == b"HTTP/1.1 400 Bad Request"
    assert ask(b"GET / HTTP/2.0\r\n\r\n") == b"HTTP/1.1 400 Bad Request"
    assert ask(b"GET /\x01 HTTP/1.1\r\n\r\n") == b"HTTP/1.1 400 Bad Request"
    assert ask(b"GET /live HTTP/1.1\r\nX: " + b"x" * 9000) == b"HTTP/1.1 431 Request Header Fields Too Large"
    assert ask(b"HEAD /live HTTP/1.0\r\n\r\n") == b"HTTP/1.1 200 OK"
    assert ask(b"GET /metrics?x=1 HTTP/1.1\r\n\r\n") == b"HTTP/1.1 200 OK"
    slow = [socket.create_connection(("127.0.0.1", pod.admin_port), timeout=5) for _ in range(100)]
    for s in slow:
        s.send(b"GET /li")
    assert pod.get("/live") == (200, "live\n")
    assert pod.process.poll() is None
    for s in slow:
        s.close()


def test_a_joining_pod_waits_for_its_key(world):
    key = os.path.join(world.state, "pods", "client", "link.key")
    os.rename(key, key + ".later")
    pod = Pod(world, "client")
    pod.requests(6)
    sub = world.subscriber(b"metrics/", world.keys["feed"])
    until(lambda: pod.get("/metrics")[0] == 200)
    assert "weft_feed_connected 0" in pod.get("/metrics")[1]
    os.rename(key + ".later", key)
    receive_series(sub, "request_total", 6)
