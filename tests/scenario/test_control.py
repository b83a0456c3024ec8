"""weft-broker, weft-authority and weft-link with each other; proxies, tls and the CLI are played by the test."""
import os
import shutil
import signal
import subprocess
import time

import msgpack
import pytest
import zmq

from controls import (ACK, ALIVE, APPLIED, APPLY, BIN, CERTIFICATE, CERTIFY, CHANGED, CREATED, DELETED, FEED_KEY,
                      FEED_KEY_ANSWER, FETCH, HELLO, LISTEN, NOT_FOUND, PORTS, REFUSED, REFUSED_OBJECT, SERVING,
                      TOKEN, TRUST, UNCHANGED, UNRESOLVED, WAIT, WATCH, Controls, free_ports, pack, until)

pytestmark = pytest.mark.asan


@pytest.fixture
def world(tmp_path):
    w = Controls(tmp_path)
    try:
        w.broker()
        w.authority()
        yield w
    finally:
        codes = w.done()
    assert all(c in (0, -9) for c in codes.values()), codes


def service(name, *ports, **spec):
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"ports": [{"port": p, "name": "p%d" % p} for p in ports], **spec}}


def route(name, parent, to, port=80):
    return {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": name},
            "spec": {"parentRefs": [{"kind": "Service", "group": "core", "name": parent, "port": port}],
                     "rules": [{"backendRefs": [{"name": to, "port": port}]}]}}


def slice_of(name, svc, port, *ips):
    return {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": svc}}, "addressType": "IPv4",
            "ports": [{"port": port, "name": "p%d" % port}], "endpoints": [{"addresses": [ip]} for ip in ips]}


def test_apply_stores_each_object_or_says_why_not(world):
    cli = world.cli()
    bad = service("web", 80)
    bad["spec"]["ports"][0]["port"] = 99999
    revision, out = cli.apply(service("api", 80), bad, {"kind": "Nonsense"}, service("db", 5432))
    assert [o[1] for o in out] == [CREATED, REFUSED_OBJECT, REFUSED_OBJECT, CREATED]
    assert out[0][0] == "Service/default/api" and "spec.ports[0].port" in out[1][2], out
    assert cli.apply(service("api", 80))[1][0][1] == UNCHANGED
    assert cli.apply(service("api", 80))[0] == revision, "nothing changed, no revision"
    again, out = cli.apply(service("api", 80, 81), author="anna", reason="a second port")
    assert out[0][1] == CHANGED and again == revision + 1
    assert cli.apply(service("new", 1), dry=True)[1][0][1] == CREATED
    assert cli.delete(("Service", "", "new"))[1][0][1] == NOT_FOUND
    _, out = cli.delete(("svc", "default", "db"), ("Nonsense", "", "x"))
    assert [o[1] for o in out] == [DELETED, REFUSED_OBJECT]
    assert world.sql("SELECT name FROM mesh_objects") == [("api",)]
    assert world.sql("SELECT change, author, reason FROM mesh_changes WHERE name='api' ORDER BY revision") == [
        ("created", "test", "a test"), ("changed", "anna", "a second port")]
    kinds = [k for (k,) in world.sql("SELECT kind FROM mesh_events ORDER BY id")]
    assert "OBJECT_CREATED" in kinds and "OBJECT_REFUSED" in kinds and "OBJECT_DELETED" in kinds
    with open(os.path.join(world.state, "hosts")) as f:
        hosts = f.read()
    (ip,), = world.sql("SELECT address FROM mesh_services WHERE name='api'")
    assert ip + " api.default.svc.cluster.local api.default.svc api.default api\n" in hosts and "db" not in hosts


def test_a_pod_joins_serves_and_is_found(world):
    web = world.join("web-1", "10.1.0.2", "web:8080/http1")
    client = world.join("client-1", "10.1.0.3")
    world.live("web-1")
    world.live("client-1")
    client.resolve("web:8080")
    d = client.destination("web:8080")
    assert d["kind"] == 1 and d["backends"][0][5] == [], "not serving yet"
    web.send(SERVING, True)
    d = client.endpoints("web:8080", ["10.1.0.2:8080"])
    e = d["backends"][0][5][0]
    assert e[2] == "web.default.serviceaccount.identity.weft.cluster.local" and e[3] == 4143 and e[4] == "default/web-1"
    assert d["protocol"] == 1 and not d["is_stale"]
    # The same by the service's address, the long name, the pod's own address; and what nobody knows.
    (ip,), = world.sql("SELECT address FROM mesh_services WHERE name='web'")
    for target in (ip + ":8080", "web.default.svc.cluster.local:8080"):
        client.resolve(target)
        client.endpoints(target, ["10.1.0.2:8080"])
    client.resolve("10.1.0.2:8080")
    assert client.destination("10.1.0.2:8080")["kind"] == 2
    client.resolve("example.com:443")
    assert client.destination("example.com:443")["kind"] == 0
    client.resolve("not a target")
    assert client.expect(UNRESOLVED)[1] == "not a target"
    # What its own ports speak.
    web.send(LISTEN, "ports")
    assert [port[:3] for port in web.expect(PORTS)[0]] == [["web", 8080, 1]]
    # It leaves: first out of every pool, then gone.
    world.end("web-1")
    client.endpoints("web:8080", [])
    until(lambda: world.sql("SELECT count(*) FROM mesh_sessions") == [(1,)])
    assert world.sql("SELECT count(*) FROM mesh_events WHERE kind='SESSION_ENDED'") == [(1,)]


def test_a_token_joins_one_pod_of_its_name_once(world):
    token, key, anchors = world.cli().token("default", "web")
    assert b"BEGIN CERTIFICATE" in anchors
    world.join("web-1", "10.1.0.2", token=token, key=key)
    world.live("web-1")
    world.join("web-2", "10.1.0.3", token=token, key=key)
    until(lambda: "TOKEN_USED" in world.log("web-2"))
    world.join("other-1", "10.1.0.4", sa="other", token=world.cli().token("default", "web")[0], key=key)
    until(lambda: "WRONG_NAME" in world.log("other-1"))
    assert world.sql("SELECT pod FROM mesh_sessions") == [("web-1",)]
    assert world.sql("SELECT count(*) FROM mesh_events WHERE kind='JOIN_REFUSED'")[0][0] >= 2
    # Its own key opens the door after a restart, the token is not needed any more.
    os.unlink(os.path.join(world.path, "web-1", "token"))
    world.end("web-1", signal.SIGKILL)
    world.link("web-1")
    world.live("web-1")


def test_who_has_no_key_gets_nothing(world):
    public, secret = zmq.curve_keypair()
    token, key, _ = world.cli().token("default", "web")
    for kind, port in ((zmq.DEALER, world.ports[0]), (zmq.SUB, world.ports[1])):
        s = world.ctx.socket(kind)
        s.linger = 0
        s.curve_publickey, s.curve_secretkey, s.curve_serverkey = public, secret, key.encode()
        if kind == zmq.SUB:
            s.subscribe(b"")
        s.connect("tcp://127.0.0.1:%d" % port)
        if kind == zmq.DEALER:
            s.send(pack(ALIVE, 1, 0))
        assert not s.poll(1500)
        s.close()
    until(lambda: world.sql("SELECT count(*) FROM mesh_events WHERE kind='KEY_REFUSED'") == [(1,)])


def test_garbage_is_counted_and_answered(world):
    web = world.join("web-1", "10.1.0.2", "web:80")
    world.live("web-1")
    cli = world.cli()
    for junk in (b"", b"\xc1", b"\xdd\x0f\xff\xff\xff", pack(0x701), pack(0x9999, 1), pack(APPLY, 1, "id"), os.urandom(300),
                 pack(HELLO, 1, *range(16)), pack(*range(20000))):
        cli.s.send(junk)
        assert cli.expect(REFUSED)[0] == 0
        web.s.send(junk)
    assert cli.status()["sessions"] == 1
    # Frames of several parts, and requests with values that make no sense.
    cli.s.send_multipart([b"a", b"b"])
    assert cli.ask(WAIT, 2 ** 63, 10)[0] == REFUSED
    assert cli.ask(TOKEN, "no such name!", "x", 0)[0] == REFUSED
    assert cli.ask(TOKEN, "default", "x", 2 ** 32 - 1)[0] == REFUSED
    assert cli.ask(FEED_KEY, "never made", True)[0] == REFUSED
    web.resolve("web:80")
    assert web.destination("web:80")["kind"] == 1


def test_wait_names_who_has_not_applied(world):
    cli = world.cli()
    cli.apply(service("api", 80), service("api-v2", 80))
    a, b = world.join("a-1", "10.1.0.2"), world.join("b-1", "10.1.0.3")
    world.live("a-1")
    world.live("b-1")
    for p in (a, b):
        p.resolve("api:80")
        p.destination("api:80")
    b.applies = False
    revision, _ = cli.apply(route("r", "api", "api-v2"))
    a.destination("api:80", where=lambda d: d["rules"] and d["rules"][0][0] != "")
    b.destination("api:80", where=lambda d: d["rules"] and d["rules"][0][0] != "")
    sessions, laggards = cli.wait(revision, 700)
    assert sessions == 2 and [x[0] for x in laggards] == ["default/b-1"] and laggards[0][1] < revision
    b.send(APPLIED, "api:80", revision)
    begin = time.monotonic()
    assert cli.wait(revision, 5000) == (2, [])
    assert time.monotonic() - begin < 1.0 * 5
    # A change that concerns nobody is applied by everybody at once.
    b.s.close()
    world.peers.remove(b)
    revision, _ = cli.apply(service("elsewhere", 80))
    assert cli.wait(revision, 3000)[1] == []


def test_slices_and_routes_reach_the_view(world):
    cli = world.cli()
    cli.apply(service("api", 80), service("api-v2", 80), slice_of("s1", "api", 8080, "10.9.0.1", "10.9.0.2"))
    client = world.join("client-1", "10.1.0.3")
    world.live("client-1")
    client.resolve("api:80")
    client.endpoints("api:80", ["10.9.0.1:8080", "10.9.0.2:8080"])
    cli.apply(slice_of("s1", "api", 8080, "10.9.0.3"))
    d = client.endpoints("api:80", ["10.9.0.3:8080"])
    assert d["backends"][0][5][0][2] == "", "not meshed"
    cli.apply(route("r", "api", "api-v2"))
    d = client.destination("api:80", where=lambda d: d["rules"][0][0] == "HTTPRoute/default/r")
    assert any(x[1] == "api-v2" for x in d["backends"])
    cli.delete(("HTTPRoute", "default", "r"))
    client.destination("api:80", where=lambda d: d["rules"][0][0] == "")
    cli.delete(("Service", "default", "api"))
    client.destination("api:80", where=lambda d: d["kind"] == 0)
    assert world.sql("SELECT service, ip FROM mesh_endpoints WHERE source='slice'") == [("api", "10.9.0.3")]


def test_a_killed_broker_loses_nothing_acknowledged(world):
    cli = world.cli()
    web = world.join("web-1", "10.1.0.2", "web:8080")
    client = world.join("client-1", "10.1.0.3")
    world.live("web-1")
    world.live("client-1")
    web.send(SERVING, True)
    client.resolve("web:8080")
    client.endpoints("web:8080", ["10.1.0.2:8080"])
    epoch = cli.status()["epoch"]
    for i in range(3):
        revision, out = cli.apply(service("s%d" % i, 80))
        assert out[0][1] == CREATED
        world.end("weft-broker", signal.SIGKILL)
        # Who knows, goes on; who asks something new is told so after a second.
        client.resolve("unheard-%d:80" % i)
        assert client.expect(UNRESOLVED, 4)[1] == "unheard-%d:80" % i
        world.broker()
        status = cli.status()
        assert status["epoch"] == epoch and status["revision"] >= revision
        assert world.sql("SELECT count(*) FROM mesh_objects WHERE name='s%d'" % i) == [(1,)]
        until(lambda: cli.status()["sessions"] == 2, 15)
    client.resolve("web.default:8080")
    client.endpoints("web.default:8080", ["10.1.0.2:8080"])
    assert world.sql("SELECT count(*) FROM mesh_events WHERE kind='SESSION_LOST'") == [(0,)]
    assert world.sql("SELECT count(*) FROM mesh_events WHERE kind='SESSION_OPENED'") == [(2,)], "resumed, not opened"


def test_a_lost_lease_takes_the_endpoints(world):
    web = world.join("web-1", "10.1.0.2", "web:8080")
    client = world.join("client-1", "10.1.0.3")
    world.live("client-1")
    world.live("web-1")
    web.send(SERVING, True)
    client.resolve("web:8080")
    client.endpoints("web:8080", ["10.1.0.2:8080"])
    world.processes["web-1"].send_signal(signal.SIGSTOP)
    client.endpoints("web:8080", [], 8)
    until(lambda: world.sql("SELECT object FROM mesh_events WHERE kind='SESSION_LOST'") == [("default/web-1",)])
    world.processes["web-1"].send_signal(signal.SIGCONT)
    client.endpoints("web:8080", ["10.1.0.2:8080"], 15)


def test_a_link_serves_from_its_snapshot(world):
    web = world.join("web-1", "10.1.0.2", "web:8080")
    world.live("web-1")
    web.send(SERVING, True)
    web.send(LISTEN, "trust")
    revision, anchors = web.expect(TRUST)
    assert b"BEGIN CERTIFICATE" in anchors
    web.resolve("web:8080")
    web.endpoints("web:8080", ["10.1.0.2:8080"])
    path = os.path.join(world.path, "web-1", "snapshot")
    until(lambda: os.path.exists(path) and b"dst/default/web" in open(path, "rb").read())
    assert os.stat(path).st_mode & 0o777 == 0o600
    world.end("weft-broker", signal.SIGKILL)
    world.end("web-1", signal.SIGKILL)
    web = world.link("web-1")
    web.resolve("web:8080")
    d = web.destination("web:8080", 3)
    assert d["is_stale"] and d["backends"][0][5][0][0] == "10.1.0.2"
    web.send(LISTEN, "trust")
    assert web.expect(TRUST)[1] == anchors
    world.broker()
    d = web.destination("web:8080", 15, where=lambda d: not d["is_stale"])
    # A damaged one is not used, and harms nothing.
    world.end("web-1", signal.SIGKILL)
    with open(path, "r+b") as f:
        f.seek(40)
        f.write(b"\xff\xff\xff")
    world.link("web-1")
    assert "LINK_SNAPSHOT" in world.log("web-1")
    world.live("web-1")


def test_a_killed_link_leaves_its_pod_in_service(world):
    web = world.join("web-1", "10.1.0.2", "web:8080")
    client = world.join("client-1", "10.1.0.3")
    world.live("web-1")
    world.live("client-1")
    web.send(SERVING, True)
    client.resolve("web:8080")
    client.endpoints("web:8080", ["10.1.0.2:8080"])
    before = world.cli().status()["revision"]
    world.end("web-1", signal.SIGKILL)
    world.link("web-1")
    until(lambda: world.log("web-1").count("session state=live") == 2)
    assert world.cli().status()["revision"] == before, "not even a change"


def test_a_new_epoch_is_fetched_whole(world):
    web = world.join("web-1", "10.1.0.2", "web:8080")
    world.live("web-1")
    web.resolve("web:8080")
    first = web.destination("web:8080")
    epoch = world.cli().status()["epoch"]
    world.end("weft-broker")
    # The broker's state is restored from a time before: the key is known, everything else is not.
    saved = os.path.join(world.path, "saved")
    shutil.copytree(os.path.join(world.state, "broker"), saved)
    subprocess.run(["sqlite3", os.path.join(world.state, "broker", "mesh.db"),
                    "UPDATE meta SET value=value/2+1 WHERE key='epoch'; DELETE FROM sessions; DELETE FROM endpoints;"],
                   check=True)
    world.broker()
    assert world.cli().status()["epoch"] != epoch
    until(lambda: "new epoch" in world.log("web-1"), 15)
    world.live("web-1")
    d = web.destination("web:8080", 10)
    assert d["kind"] == first["kind"] and not d["is_stale"]


def test_certificates_pass_through(world):
    web = world.join("web-1", "10.1.0.2", "web:8080")
    world.live("web-1")
    token_file = os.path.join(world.path, "web-1", "token")
    # A request the authority must refuse is refused in its words, and the token stays.
    web.send(CERTIFY, 7, b"not a csr", "0" * 16, b"m" * 32, b"", b"")
    rid, code, why, chain = web.expect(CERTIFICATE, 10)
    assert rid == 7 and code in ("BAD_TOKEN", "BAD_CSR", "BAD_PROOF", "REFUSED") and chain == b""
    assert os.path.exists(token_file)
    with open(token_file) as f:
        _, token_id, secret = f.read().strip().split(".")
    der = make_csr(world.path, "web.default.serviceaccount.identity.weft.cluster.local")
    import hashlib
    import hmac
    mac = hmac.new(bytes.fromhex(secret), hashlib.sha256(der).digest(), hashlib.sha256).digest()
    web.send(CERTIFY, 8, der, token_id, mac, b"", b"")
    rid, code, why, chain = web.expect(CERTIFICATE, 10)
    assert rid == 8 and code == "" and b"BEGIN CERTIFICATE" in chain, (code, why)
    until(lambda: not os.path.exists(token_file))
    assert world.sql("SELECT identity, pod, current FROM mesh_certificates") == [
        ("web.default.serviceaccount.identity.weft.cluster.local", "web-1", 1)]
    world.end("weft-authority", signal.SIGKILL)
    web.send(CERTIFY, 9, der, token_id, mac, b"", b"")
    assert web.expect(CERTIFICATE, 15)[:2] == [9, "UNAVAILABLE"]


def make_csr(path, identity):
    key, csr = os.path.join(path, "k.pem"), os.path.join(path, "csr.der")
    subprocess.run(["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
                    key, "-subj", "/", "-addext", "subjectAltName=DNS:" + identity, "-outform", "DER", "-out", csr],
                   check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with open(csr, "rb") as f:
        return f.read()


def test_feed_keys_and_no_secret_in_the_database(world):
    cli = world.cli()
    code, (public, secret, server) = cli.ask(FEED_KEY, "grafana", False)
    assert code == FEED_KEY_ANSWER and len(public) == len(secret) == len(server) == 40
    token, _, _ = cli.token("default", "web")
    assert cli.ask(FEED_KEY, "grafana", True)[0] == FEED_KEY_ANSWER
    world.end("weft-broker")
    raw = b""
    for name in os.listdir(os.path.join(world.state, "broker")):
        if name.startswith("mesh.db"):
            with open(os.path.join(world.state, "broker", name), "rb") as f:
                raw += f.read()
    assert public.encode() in raw and secret.encode() not in raw
    assert token.split(".")[2].encode() not in raw and bytes.fromhex(token.split(".")[2]) not in raw
    world.broker()


def test_readers_do_not_hold_up_the_broker(world):
    """An operator's shell in the middle of a long query, and one that was opened writable."""
    db = os.path.join(world.state, "broker", "mesh.db")
    cli = world.cli()
    cli.apply(service("a", 80))
    readers = [subprocess.Popen(["sqlite3"] + flags + [db, "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM c"
                                                       " LIMIT 60000000) SELECT count(*) FROM c, (SELECT * FROM mesh_objects LIMIT 1)"],
                                stdout=subprocess.DEVNULL) for flags in (["-readonly"], [])]
    try:
        time.sleep(0.3)
        for i in range(30):
            assert cli.apply(service("b", 80 + i))[1][0][1] in (CREATED, CHANGED)
        # The order is the proof, not a time: two shells at full speed take the machine's cores away from everybody.
        assert all(r.poll() is None for r in readers), "the readers were done too early to prove anything"
    finally:
        for r in readers:
            r.kill()
            r.wait()


class FakeBroker:
    """The broker's side of a link's two sockets, so that news can be kept from it."""

    def __init__(self, world):
        self.ports = free_ports(2)
        self.public, secret = zmq.curve_keypair()
        self.router, self.pub = world.ctx.socket(zmq.ROUTER), world.ctx.socket(zmq.PUB)
        for s, port in ((self.router, self.ports[0]), (self.pub, self.ports[1])):
            s.linger, s.curve_server, s.curve_secretkey = 0, True, secret
            s.bind("tcp://127.0.0.1:%d" % port)
        self.epoch, self.topics, self.acks, self.has_joined = 77, {}, [], False

    def send(self, to, *fields):
        self.router.send_multipart([to, pack(*fields)])

    def welcome(self):
        who, f = self.hello
        self.send(who, 0x402, 1, f[0], self.epoch, 1, "id", int(time.time() * 1000), 2000, not self.has_joined)
        self.has_joined = True

    def pump(self, seconds, stop=lambda code, f: False, hello=True):
        """Answers for a while; True as soon as stop() says so."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if not self.router.poll(50):
                continue
            who, body = self.router.recv_multipart()
            m = msgpack.unpackb(body)
            code, f = m[0], m[2:]
            if code == HELLO:
                self.hello = who, f
                if hello:
                    self.welcome()
            if code in (WATCH, FETCH):
                for topic, _ in f[0]:
                    revision, payload = self.topics.setdefault(topic, (1, self.default(topic)))
                    self.send(who, 0x408, 1, self.epoch, revision, topic, revision, payload)
            if code == ACK:
                self.acks.append(f)
            if stop(code, f):
                return True
        return False

    @staticmethod
    def default(topic):
        if topic == "trust":
            return pack(0x308, 1, 0, b"PEM")
        if topic.startswith("pod/"):
            return pack(0x305, 1, [])
        return FakeBroker.destination("10.0.0.1")

    @staticmethod
    def destination(ip):
        return pack(0x303, 1, 0, "x", 0, 1, "default", "web", 80, 0, [],
                    [["default", "web", 80, 0, 0, [[ip, 80, "", 0, "", "", 10000]]]], False)

    def digest(self, epoch=None):
        import hashlib
        rows = [[int.from_bytes(hashlib.sha256(t.encode()).digest()[:8], "big"), r] for t, (r, _) in self.topics.items()]
        self.pub.send(b"digest\0" + pack(0x40c, 1, epoch or self.epoch, 1, 0, 1, rows))

    def close(self):
        self.router.close()
        self.pub.close()


@pytest.fixture
def fake(tmp_path):
    w = Controls(tmp_path)
    f = FakeBroker(w)
    try:
        secret = os.urandom(32).hex()
        w.join("a-1", "10.1.0.2", broker=f.ports[0], updates=f.ports[1], key=f.public.decode(),
               token="weft1.%s.%s" % ("0" * 16, secret))
        w.fake = f
        assert f.pump(10, lambda code, _: code == WATCH)
        yield w
    finally:
        f.close()
        codes = w.done()
    assert all(c in (0, -9) for c in codes.values()), codes


def test_a_lost_hint_is_repaired_by_the_digest(fake):
    f, a = fake.fake, fake.peers[-1]
    topic = "dst/default/web.default.svc.cluster.local:80"
    a.resolve("web:80")
    assert f.pump(5, lambda code, m: code == WATCH)
    assert a.destination("web:80")["backends"][0][5][0][0] == "10.0.0.1"
    f.pump(1, lambda code, m: code == ACK)
    f.topics[topic] = (5, f.destination("10.0.0.9"))  # and no hint
    fetched = False
    for _ in range(2):
        f.digest()
        fetched = fetched or f.pump(0.5, lambda code, m: code == FETCH and m[0][0][0] == topic)
    assert fetched, "not within two digests"
    assert a.destination("web:80", where=lambda d: d["revision"] == 5)["backends"][0][5][0][0] == "10.0.0.9"
    assert f.pump(3, lambda code, m: code == ACK), "and acknowledged once it is in force"
    # Older news and news of another topic change nothing.
    f.pub.send(topic.encode() + b"\0" + pack(0x40b, 1, 77, 1, topic, 4))
    f.pub.send(topic.encode() + b"80\0" + pack(0x40b, 1, 77, 1, topic + "80", 9))
    f.pub.send(topic.encode() + b"\0" + pack(0x40b, 1, 78, 9, topic, 9))
    assert not f.pump(0.7, lambda code, m: code in (FETCH, HELLO))


def test_a_payload_that_is_not_whole_changes_nothing(fake):
    f, a = fake.fake, fake.peers[-1]
    topic = "dst/default/web.default.svc.cluster.local:80"
    a.resolve("web:80")
    f.pump(5, lambda code, m: code == WATCH)
    a.destination("web:80")
    good = f.destination("10.0.0.9")
    for n, bad in enumerate((good[:-1], good + b"\0", pack(0x308, 1, 0, b"PEM"), b"", os.urandom(64), good)):
        f.topics[topic] = (10 + n, bad)
        f.pub.send(topic.encode() + b"\0" + pack(0x40b, 1, 77, 1, topic, 10 + n))
        assert f.pump(3, lambda code, m: code == FETCH)
    d = a.destination("web:80")
    assert d["revision"] == 15 and d["backends"][0][5][0][0] == "10.0.0.9"


def test_an_epoch_in_a_digest_begins_anew(fake):
    f = fake.fake
    until(lambda: f.pump(0.1) or fake.is_live("a-1"))
    f.epoch = 1234
    f.digest()
    assert f.pump(5, lambda code, m: code == HELLO)
    assert f.pump(5, lambda code, m: code == WATCH and all(r == 0 for _, r in m[0]))


def test_what_is_said_during_the_hello_is_told_after_it(fake):
    """The proxy is ready between hello and welcome: the hello said no, nobody would ever say yes."""
    f, a = fake.fake, fake.peers[-1]
    until(lambda: f.pump(0.1) or fake.is_live("a-1"))
    f.epoch = 1234
    f.digest()
    assert f.pump(5, lambda code, m: code == HELLO, hello=False)
    assert f.hello[1][12] is False, f.hello
    a.send(SERVING, True)
    # Answered in order: the link has heard the one when it answers the other.
    a.resolve("not a target")
    assert a.expect(UNRESOLVED)[1] == "not a target"
    f.welcome()
    assert f.pump(5, lambda code, m: code == SERVING and m == [True])
    a.send(SERVING, True)
    assert not f.pump(0.5, lambda code, m: code == SERVING), "said once"


def test_a_silent_feed_is_opened_anew(fake):
    f = fake.fake
    until(lambda: f.pump(0.1) or fake.is_live("a-1"))
    assert f.pump(10, lambda code, m: code == HELLO), "5 digests of 500 ms were missing"
