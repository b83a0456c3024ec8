"""weft-tls and weft-authority with everything around them played by the test: the link, the broker, the proxy
(weft-tls-probe: the proxy's own conn, handshake and record rooms) and foreign peers (OpenSSL, GnuTLS)."""
import contextlib
import ctypes
import os
import queue
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

import msgpack
import zmq

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("WEFT_BUILD", os.path.join(ROOT, "build"))
SLOW = 5 if "ASAN_OPTIONS" in os.environ else 1
SUITES = ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"]

CERTIFY, CERTIFICATE, TRUST, LISTEN, APPLIED = 0x0306, 0x0307, 0x0308, 0x0309, 0x030a
SIGN, TOKEN_MAKE, ANCHORS_ASK = 0x040e, 0x0501, 0x0504
STATE, EVENT = 0x0604, 0x0603


def binary(name):
    for folder in ("bin", "tests"):
        path = os.path.join(BUILD, folder, name)
        if os.access(path, os.X_OK):
            return path
    raise AssertionError("%s is not built in %s" % (name, BUILD))


def wait_for(claim, what, seconds=10.0):
    end = time.monotonic() + seconds * SLOW
    while True:
        got = claim()
        if got:
            return got
        assert time.monotonic() < end, "not in time: " + what
        time.sleep(0.01)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def identity(account, namespace="default"):
    return "%s.%s.serviceaccount.identity.weft.cluster.local" % (account, namespace)


class Lines:
    """A process whose output lines are waited for. Input is written with say()."""

    def __init__(self, argv, **kw):
        self.lines, self.new = [], queue.Queue()
        self.p = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  bufsize=0, **kw)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in iter(self.p.stdout.readline, b""):
            self.lines.append(line.decode(errors="replace").rstrip("\r\n"))

    def say(self, text):
        self.p.stdin.write(text.encode())

    def end_input(self):
        self.p.stdin.close()

    def seen(self, part, at_least=1):
        return sum(part in line for line in self.lines) >= at_least

    def _seen_or_over(self, part, at_least):
        if self.seen(part, at_least):
            return True
        if self.p.poll() is not None:  # nothing more will come
            self.reader.join(2)
            assert self.seen(part, at_least), "it ended"
            return True
        return False

    def wait(self, part, seconds=10.0, at_least=1):
        try:
            wait_for(lambda: self._seen_or_over(part, at_least), part, seconds)
        except AssertionError:
            raise AssertionError("no %r in:\n%s" % (part, "\n".join(self.lines[-40:])))
        return next(line for line in self.lines if part in line)

    def ended(self, seconds=10.0):
        code = self.p.wait(seconds * SLOW)
        self.reader.join(2)
        return code

    def kill(self):
        if self.p.poll() is None:
            self.p.kill()
        self.p.wait()
        self.reader.join(2)
        for f in (self.p.stdin, self.p.stdout):
            with contextlib.suppress(OSError):
                f.close()


class Authority:
    """weft-authority with the test as its broker."""

    def __init__(self, folder, **settings):
        self.run, self.state = folder + "/c", folder + "/cs"
        for d in (self.run, self.state):
            os.makedirs(d, mode=0o700, exist_ok=True)
        self.settings = settings
        self.context = zmq.Context()
        self.lock = threading.Lock()
        self.process = self.socket = None
        self.start()

    def start(self, expect_ready=True):
        env = dict(os.environ, WEFT_RUN_DIR=self.run, WEFT_STATE_DIR=self.state, WEFT_LOG="debug", **self.settings)
        self.process = Lines([binary("weft-authority")], env=env)
        if not expect_ready:
            return
        self.process.wait("ready")
        if self.socket is not None:
            self.socket.close(0)
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.connect("ipc://%s/authority.sock" % self.run)

    def stop(self, sig=signal.SIGTERM):
        self.process.p.send_signal(sig)
        code = self.process.ended()
        self.process.kill()
        return code

    def ask(self, code, *fields):
        with self.lock:
            rid = random.getrandbits(60)
            self.socket.send(msgpack.packb([code, 1, rid, *fields], use_bin_type=True))
            while True:
                assert self.socket.poll(5000 * SLOW), "the authority does not answer"
                m = msgpack.unpackb(self.socket.recv(), raw=False)
                if m[2] == rid:
                    return m[3:]

    def token(self, who, ttl_ms=0):
        token_id, secret = self.ask(TOKEN_MAKE, who, ttl_ms)
        return "weft1.%s.%s" % (token_id, secret.hex()) if token_id else ""

    def anchors(self):
        return self.ask(ANCHORS_ASK)[0]

    def sign(self, who, csr, token_id="", mac=b"", old=b"", signature=b""):
        """(code, why, chain, identity, serial, not_before, not_after, fingerprint)"""
        return self.ask(SIGN, who, csr, token_id, mac, old, signature)

    def path(self, name):
        return "%s/authority/%s" % (self.state, name)

    def done(self):
        self.process.kill()
        if self.socket is not None:
            self.socket.close(0)
        self.context.destroy(0)


class Link:
    """Plays weft-link and weft-telemetry for one pod. `answer` may be replaced by a test."""

    def __init__(self, run, who, authority):
        self.who, self.authority = who, authority
        self.states, self.events, self.applied, self.asked = [], [], [], []
        self.extra_anchors, self.revision = b"", 1
        self.fault = None  # a callable(fields) -> (code, why, chain) or None (no answer)
        self.listeners = set()
        self.context = zmq.Context()
        self.link = self.context.socket(zmq.ROUTER)
        self.link.bind("ipc://%s/link.sock" % run)
        self.telemetry = self.context.socket(zmq.ROUTER)
        self.telemetry.bind("ipc://%s/telemetry.sock" % run)
        self.inbox = queue.Queue()
        self.is_over = False
        self.thread = threading.Thread(target=self._loop, daemon=True)
        self.thread.start()

    def _loop(self):
        poller = zmq.Poller()
        poller.register(self.link, zmq.POLLIN)
        poller.register(self.telemetry, zmq.POLLIN)
        while not self.is_over:
            ready = dict(poller.poll(50))
            while not self.inbox.empty():
                self._push_trust()
                self.inbox.get()
            if self.telemetry in ready:
                m = msgpack.unpackb(self.telemetry.recv_multipart()[1], raw=False)
                (self.states if m[0] == STATE else self.events).append(m[2:])
            if self.link in ready:
                who, body = self.link.recv_multipart()
                self._on_link(who, msgpack.unpackb(body, raw=False))

    def _send(self, who, *fields):
        self.link.send_multipart([who, msgpack.packb(list(fields), use_bin_type=True)])

    def _push_trust(self):
        for who in self.listeners:
            self._send(who, TRUST, 1, self.revision, self.authority.anchors() + self.extra_anchors)

    def _on_link(self, who, m):
        if m[0] == LISTEN:
            self.listeners.add(who)
            self._push_trust()
        elif m[0] == APPLIED:
            self.applied.append((m[2], m[3]))
        elif m[0] == CERTIFY:
            self.asked.append(m[2:])
            rid, csr, token_id, mac, old, signature = m[2:8]
            if self.fault is not None:
                answer = self.fault(m[2:8])
                if answer is None:
                    return
            else:
                answer = self.authority.sign(self.who, csr, token_id, mac, old, signature)[:3]
            self._send(who, CERTIFICATE, 1, rid, *answer)

    def push_trust(self, extra):
        self.extra_anchors, self.revision = extra, self.revision + 1
        self.inbox.put(1)

    def done(self):
        self.is_over = True
        self.thread.join(3)
        self.link.close(0)
        self.telemetry.close(0)
        self.context.destroy(0)


def make_vault(is_secret):
    """Memory as the supervisor makes it: memfd_secret where the kernel has it."""
    fd = ctypes.CDLL(None).syscall(447, os.O_CLOEXEC) if is_secret else -1
    if fd < 0:
        fd = os.memfd_create("vault")
    os.ftruncate(fd, 64 * 1024)
    os.set_inheritable(fd, True)
    return fd


class Pod:
    """weft-tls with a vault that the test holds, as the supervisor does."""

    def __init__(self, folder, account, authority, has_token=True, is_secret=True, **settings):
        self.who, self.authority = identity(account), authority
        self.run = "%s/p-%s" % (folder, account)
        os.makedirs(self.run, mode=0o700)
        self.vault = make_vault(is_secret)
        self.token_file = self.run + "/token"
        with open(self.run + "/anchors.pem", "wb") as f:
            f.write(authority.anchors())
        if has_token:
            with open(os.open(self.token_file, os.O_WRONLY | os.O_CREAT, 0o600), "w") as f:
                f.write(authority.token(self.who) + "\n")
        self.env = dict(os.environ, WEFT_RUN_DIR=self.run, WEFT_STATE_DIR=self.run, WEFT_POD=account,
                        WEFT_SERVICE_ACCOUNT=account, WEFT_JOIN_TOKEN_FILE=self.token_file, WEFT_LOG="debug",
                        WEFT_TRUST_ANCHORS_FILE=self.run + "/anchors.pem", WEFT_FDS="vault=%d" % self.vault)
        self.env.update(settings)
        self.link = Link(self.run, self.who, authority)
        self.processes = []
        self.tls = None
        self.start()

    def start(self):
        self.tls = Lines([binary("weft-tls")], env=self.env, pass_fds=[self.vault])
        self.processes.append(self.tls)

    def has_certificate(self):
        self.tls.wait("certificate in force")
        return self

    def serve(self, *args):
        """A server in the pod: (process, port)."""
        p = Lines([binary("weft-tls-probe"), "serve", self.run, "0", *args])
        self.processes.append(p)
        return p, int(p.wait("listening").split()[1])

    def dial(self, port, name, alpn=True, *args):
        p = Lines([binary("weft-tls-probe"), "dial", self.run, str(port), name, "1" if alpn else "0", *args])
        self.processes.append(p)
        return p

    def done(self):
        for p in self.processes:
            p.kill()
        self.link.done()
        os.close(self.vault)


class Chopper:
    """A TCP proxy that forwards in pieces of 1 to 7 bytes."""

    def __init__(self, to_port, seed=1):
        self.random = random.Random(seed)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port, self.to_port = self.listener.getsockname()[1], to_port
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                a, _ = self.listener.accept()
                b = socket.create_connection(("127.0.0.1", self.to_port))
                for s in (a, b):
                    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._pump, args=(a, b), daemon=True).start()
                threading.Thread(target=self._pump, args=(b, a), daemon=True).start()

    def _pump(self, a, b):
        with contextlib.suppress(OSError):
            while True:
                data = a.recv(4096)
                if not data:
                    b.shutdown(socket.SHUT_WR)
                    return
                while data:
                    n = self.random.randint(1, 7)
                    b.sendall(data[:n])
                    data = data[n:]

    def done(self):
        self.listener.close()


class Rig:
    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="wtls")
        self.things = []
        self.authority = None

    def control(self, **settings):
        self.authority = Authority(self.folder, **settings)
        return self.authority

    def pod(self, account, **kw):
        p = Pod(self.folder, account, self.authority or self.control(), **kw)
        self.things.append(p)
        return p

    def chopper(self, port):
        c = Chopper(port)
        self.things.append(c)
        return c

    def process(self, *argv, **kw):
        p = Lines(list(argv), **kw)
        p.done = p.kill
        self.things.append(p)
        return p

    def file(self, name, content=b""):
        path = "%s/%s" % (self.folder, name)
        if content:
            with open(path, "wb") as f:
                f.write(content)
        return path

    def sh(self, *argv, stdin=b""):
        r = subprocess.run(argv, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=30)
        assert r.returncode == 0, "%s: %s" % (" ".join(argv), r.stderr.decode(errors="replace"))
        return r.stdout

    def key(self, name):
        path = self.file(name)
        self.sh("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", path)
        return path

    def foreign_ca(self, name="other"):
        key, cert = self.key(name + ".key"), self.file(name + ".crt")
        self.sh("openssl", "req", "-x509", "-new", "-key", key, "-subj", "/CN=" + name, "-days", "9", "-out", cert)
        return cert, key

    def certificate(self, name, sans, ca=None, ago="", eku="serverAuth,clientAuth", subject="/"):
        """A peer's certificate, signed by the mesh's own issuer unless `ca` = (cert, key) is given:
        (certificate and chain file, key file)."""
        ca_cert, ca_key = ca or (self.authority.path("issuer.crt"), self.authority.path("issuer.key"))
        key, csr, cert = self.key(name + ".key"), self.file(name + ".csr"), self.file(name + ".crt")
        ext = self.file(name + ".ext", ("basicConstraints=CA:FALSE\nextendedKeyUsage=%s\n%s" % (
            eku, "subjectAltName=%s\n" % sans if sans else "")).encode())
        self.sh("openssl", "req", "-new", "-key", key, "-subj", subject, "-out", csr)
        fake = ["faketime", "-f", ago] if ago else []
        self.sh(*fake, "openssl", "x509", "-req", "-in", csr, "-CA", ca_cert, "-CAkey", ca_key, "-CAcreateserial",
                "-CAserial", self.file("serial"), "-days", "1", "-extfile", ext, "-out", cert)
        with open(cert, "ab") as f, open(ca_cert, "rb") as g:
            f.write(g.read())
        return cert, key

    def anchors(self):
        return self.file("anchors.pem", self.authority.anchors())

    def s_client(self, port, name, cert=None, *args):
        more = ["-cert", cert[0], "-cert_chain", cert[0], "-key", cert[1]] if cert else []
        sni = ["-servername", name] if name else ["-noservername"]
        return self.process("openssl", "s_client", "-connect", "127.0.0.1:%d" % port, "-tls1_3", *sni, "-CAfile",
                            self.anchors(), "-verify_return_error", *more, *args)

    def s_server(self, cert, *args):
        port = free_port()
        p = self.process("stdbuf", "-oL", "openssl", "s_server", "-accept", "127.0.0.1:%d" % port, "-tls1_3", "-cert", cert[0],
                         "-cert_chain", cert[0], "-key", cert[1], "-CAfile", self.anchors(), *args)
        p.wait("ACCEPT")
        return p, port

    def done(self):
        for t in reversed(self.things):
            t.done()
        if self.authority is not None:
            self.authority.done()
        shutil.rmtree(self.folder, ignore_errors=True)
