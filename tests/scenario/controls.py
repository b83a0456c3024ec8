"""A broker, an authority and links on loopback, and the parts that talk to them played by the test.

Messages are msgpack arrays [code, version, fields...] in the order of actors/wire/messages.def."""
import json
import os
import signal
import socket
import sqlite3
import subprocess
import time

import msgpack
import zmq

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("WEFT_BUILD", os.path.join(ROOT, "build"))
BIN = os.path.join(BUILD, "bin")
SLOW = 5 if "ASAN_OPTIONS" in os.environ else 1

RESOLVE, FORGET, DESTINATION, UNRESOLVED, PORTS = 0x301, 0x302, 0x303, 0x304, 0x305
CERTIFY, CERTIFICATE, TRUST, LISTEN, APPLIED, SERVING = 0x306, 0x307, 0x308, 0x309, 0x30a, 0x30b
HELLO, WELCOME, REFUSED, ALIVE, WATCH, UNWATCH, FETCH = 0x401, 0x402, 0x403, 0x404, 0x405, 0x406, 0x407
TOPIC, TOPIC_SAME, ACK, HINT, DIGEST = 0x408, 0x409, 0x40a, 0x40b, 0x40c
APPLY, DELETE, APPLIED_OBJECTS, WAIT, WAITED = 0x701, 0x702, 0x703, 0x704, 0x705
TOKEN, TOKEN_ANSWER, FEED_KEY, FEED_KEY_ANSWER, STATUS_ASK, STATUS = 0x706, 0x707, 0x708, 0x709, 0x70a, 0x70b
CREATED, CHANGED, UNCHANGED, DELETED, REFUSED_OBJECT, NOT_FOUND = range(6)


def free_ports(n):
    socks = [socket.socket() for _ in range(n)]
    for s in socks:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in socks]
    for s in socks:
        s.close()
    return ports


def until(what, seconds=10, why=""):
    end = time.monotonic() + seconds * SLOW
    while True:
        got = what()
        if got:
            return got
        assert time.monotonic() < end, "not in time: %s" % (why or what)
        time.sleep(0.03)


def pack(*fields):
    return msgpack.packb(list(fields), use_bin_type=True)


class Peer:
    """A DEALER on an ipc socket."""

    def __init__(self, ctx, endpoint):
        self.s = ctx.socket(zmq.DEALER)
        self.s.linger = 0
        self.s.connect(endpoint)
        self.next = 1

    def send(self, code, *fields, version=1):
        self.s.send(pack(code, version, *fields))

    def recv(self, seconds=5.0):
        if not self.s.poll(seconds * 1000 * SLOW):
            return None
        m = msgpack.unpackb(self.s.recv(), strict_map_key=False)
        return m[0], m[2:]

    def expect(self, code, seconds=5.0, where=lambda f: True):
        """The next message of this code that fits; others are passed over."""
        end = time.monotonic() + seconds * SLOW
        while time.monotonic() < end:
            got = self.recv(max(0.01, (end - time.monotonic()) / SLOW))
            if got and got[0] == code and where(got[1]):
                return got[1]
        raise AssertionError("no message 0x%x in time" % code)

    def close(self):
        self.s.close()


class Cli(Peer):
    def ask(self, code, *fields, seconds=10.0):
        rid = self.next
        self.next += 1
        self.send(code, rid, *fields)
        end = time.monotonic() + seconds * SLOW
        while time.monotonic() < end:
            got = self.recv(max(0.01, (end - time.monotonic()) / SLOW))
            if got and got[1][0] == rid:
                return got[0], got[1][1:]
        raise AssertionError("no answer to 0x%x" % code)

    def status(self):
        code, f = self.ask(STATUS_ASK)
        assert code == STATUS
        return dict(zip(("version", "epoch", "revision", "sessions", "up_ms", "issuer", "root", "authority"), f))

    def apply(self, *objects, dry=False, author="test", reason="a test"):
        """(revision, [(object, result, why)])"""
        code, f = self.ask(APPLY, author, reason, dry, [["", "", "", 0, json.dumps(o).encode()] for o in objects])
        assert code == APPLIED_OBJECTS, (code, f)
        return f[0], [tuple(o) for o in f[1]]

    def delete(self, *names):
        code, f = self.ask(DELETE, "test", "", [[k, ns, n, 0, b""] for k, ns, n in names])
        assert code == APPLIED_OBJECTS, (code, f)
        return f[0], [tuple(o) for o in f[1]]

    def wait(self, revision, ms=5000):
        """(sessions, [(pod, revision, age)])"""
        code, f = self.ask(WAIT, revision, ms, seconds=ms / 1000 + 5)
        assert code == WAITED, (code, f)
        return f[0], [tuple(x) for x in f[1]]

    def token(self, ns, sa, ttl=0):
        code, f = self.ask(TOKEN, ns, sa, ttl)
        assert code == TOKEN_ANSWER, (code, f)
        return f


class Local(Peer):
    """A process of a pod on link.sock. Applies at once what it is told, unless told not to."""

    def __init__(self, ctx, endpoint):
        super().__init__(ctx, endpoint)
        self.applies = True

    def resolve(self, target):
        self.next += 1
        self.send(RESOLVE, self.next, target)

    def destination(self, target, seconds=5.0, where=lambda d: True):
        """The next view of the target that fits, as a dict; it is acknowledged."""
        names = ("id", "target", "revision", "kind", "namespace", "name", "port", "protocol", "rules", "backends",
                 "is_stale")

        def fits(f):
            d = dict(zip(names, f))
            if d["target"] == target and self.applies:
                self.send(APPLIED, target, d["revision"])
            return d["target"] == target and where(d)

        return dict(zip(names, self.expect(DESTINATION, seconds, fits)))

    def endpoints(self, target, want, seconds=5.0):
        """Waits until the service's own endpoints are exactly these ip:port."""
        def fits(d):
            have = sorted("%s:%d" % (e[0], e[1]) for e in d["backends"][0][5]) if d["backends"] else []
            return have == sorted(want)
        return self.destination(target, seconds, fits)


class Controls:
    def __init__(self, path):
        self.path = str(path)
        self.state = os.path.join(self.path, "state")
        self.run = os.path.join(self.path, "run")
        os.makedirs(self.state, 0o700)
        os.makedirs(self.run, 0o700)
        self.ports = free_ports(2)
        self.ctx = zmq.Context()
        self.processes, self.peers, self.links = {}, [], {}

    # ---- processes ----

    def start(self, name, exe, env):
        log = open(os.path.join(self.path, name + ".log"), "ab")
        e = {"PATH": "/usr/bin:/bin", "WEFT_LOG": "debug", **env}
        e.update({k: os.environ[k] for k in ("ASAN_OPTIONS", "UBSAN_OPTIONS") if k in os.environ})
        before = self.log(name).count(" ready")
        p = subprocess.Popen([os.path.join(BIN, exe)], env=e, stdout=log, stderr=log)
        log.close()
        self.processes[name] = p
        until(lambda: p.poll() is not None or self.log(name).count(" ready") > before, 10, name + " ready")
        assert p.poll() is None, self.log(name)[-3000:]
        return p

    def log(self, name):
        try:
            with open(os.path.join(self.path, name + ".log"), errors="replace") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def control_env(self, **more):
        return {"WEFT_STATE_DIR": self.state, "WEFT_RUN_DIR": self.run, "WEFT_LISTEN_ADDRESS": "127.0.0.1",
                "WEFT_BROKER_PORT": str(self.ports[0]), "WEFT_UPDATES_PORT": str(self.ports[1]),
                "WEFT_LEASE": "2s", "WEFT_DIGEST_INTERVAL": "500ms", **more}

    def broker(self, **more):
        return self.start("weft-broker", "weft-broker", self.control_env(**more))

    def authority(self):
        p = self.start("weft-authority", "weft-authority", self.control_env())
        until(lambda: self.cli().status()["issuer"] > 0, 10, "anchors")
        return p

    def end(self, name, how=signal.SIGTERM):
        p = self.processes.pop(name)
        p.send_signal(how)
        try:
            return p.wait(10 * SLOW)
        except subprocess.TimeoutExpired:
            p.kill()
            p.wait()
            raise

    # ---- peers ----

    def cli(self):
        if not self.peers or not isinstance(self.peers[0], Cli):
            self.peers.insert(0, Cli(self.ctx, "ipc://%s/broker.sock" % self.run))
        return self.peers[0]

    def join(self, pod, ip, serves="", sa=None, broker=None, updates=None, token=None, key=None):
        """Starts the link of a new pod with a token of its own."""
        sa = sa or pod.split("-")[0]
        if token is None:
            token, key, _ = self.cli().token("default", sa)
        state, run = os.path.join(self.path, pod), os.path.join(self.path, pod + ".run")
        os.makedirs(state, 0o700, exist_ok=True)
        os.makedirs(run, 0o700, exist_ok=True)
        with open(os.path.join(state, "token"), "w") as f:
            f.write(token + "\n")
        os.chmod(f.name, 0o600)
        self.links[pod] = {
            "WEFT_STATE_DIR": state, "WEFT_RUN_DIR": run, "WEFT_POD": pod, "WEFT_WORKLOAD": sa,
            "WEFT_SERVICE_ACCOUNT": sa, "WEFT_POD_IPS": ip, "WEFT_SERVES": serves, "WEFT_INCARNATION": str(hash(pod) & 0xffffff),
            "WEFT_BROKER": "127.0.0.1:%d" % (broker or self.ports[0]),
            "WEFT_BROKER_UPDATES": "127.0.0.1:%d" % (updates or self.ports[1]),
            "WEFT_BROKER_KEY": key, "WEFT_JOIN_TOKEN_FILE": f.name, "WEFT_DIGEST_INTERVAL": "500ms"}
        return self.link(pod)

    def link(self, pod):
        self.start(pod, "weft-link", self.links[pod])
        return self.local(pod)

    def local(self, pod):
        p = Local(self.ctx, "ipc://%s/link.sock" % self.links[pod]["WEFT_RUN_DIR"])
        self.peers.append(p)
        return p

    def is_live(self, pod):
        return self.log(pod).rfind("session state=live") > max(self.log(pod).rfind("session state=down"),
                                                               self.log(pod).rfind("session state=hello"))

    def live(self, pod):
        until(lambda: self.is_live(pod), 10, pod + " live")

    def sql(self, text):
        with sqlite3.connect("file:%s/broker/mesh.db?mode=ro" % self.state, uri=True) as db:
            return db.execute(text).fetchall()

    def done(self):
        codes = {}
        for p in self.peers:
            p.close()
        for name in list(self.processes):
            p = self.processes[name]
            if p.poll() is None:
                codes[name] = self.end(name)
            else:
                codes[name] = p.returncode
        self.ctx.destroy(linger=0)
        return codes
