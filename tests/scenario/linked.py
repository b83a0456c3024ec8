"""Proxies started by hand with a weft-link made here: the test says what a target is and what the pod's own ports take.

    link = Link(view=destination([rule(request_ms=300)], [8080]))
    proxy = Linked(link, target=8080)
"""
import collections
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time

import msgpack
import zmq

from meshes import BUILD, SLOW
from proxies import listener

RESOLVE, DESTINATION, PORTS, LISTEN = 0x0301, 0x0303, 0x0305, 0x0309
REDIRECT, FAIL, DELAY = 3, 5, 7


def filter_of(kind, status=0, grpc_status=0, share_ppm=0, delay_ms=0, jitter_ms=0):
    return [kind, [], "", "", 0, 0, "", status, grpc_status, share_ppm, 0, 0, delay_ms, jitter_ms]


def rule(route="HTTPRoute/default/web", index=0, filters=(), backends=((0, 1),), request_ms=0, backend_ms=0, idle_ms=0,
         head_ms=0, retry=None):
    return [route, index, [], [], list(filters), [[b, w, []] for b, w in backends], request_ms, backend_ms, idle_ms,
            retry is not None, [] if retry is None else [retry], head_ms, [], False]


def endpoint(port, ip="127.0.0.1"):
    return [ip, port, "", 0, "", "", 10000, 0]


def backend(ports, name="web", port=80):
    return ["default", name, port, 0, 0, [endpoint(p) for p in ports], [], [], 0, 0]


def destination(rules, ports):
    """What follows a destination's target."""
    return [1, 1, "default", "web", 80, 0, list(rules), [backend(ports)], False, False, [], []]


def rate(total=0, identity=0, overrides=(), policy="HTTPLocalRateLimitPolicy/default/web"):
    return [policy, total, identity, [[per_s, [[c] for c in clients]] for per_s, clients in overrides]]


def served(port, rates=(), connections_max=0, protocol=0):
    return ["web", port, protocol, list(rates), connections_max]


class Link:
    """Answers every resolve with the view, every listen with the ports; both can be changed while it runs."""

    def __init__(self, view=None, ports=()):
        self.view, self.ports = view, list(ports)
        self.dir = tempfile.mkdtemp(prefix="weft-linked-")
        self.peers, self.targets = {}, {}
        self.todo = collections.deque()
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.ROUTER)
        self.socket.linger = 0
        self.socket.bind("ipc://%s/link.sock" % self.dir)
        self.is_over = False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _send(self, peer, message):
        self.socket.send_multipart([peer, msgpack.packb(message, use_bin_type=True)])

    def _tell(self, peer, ident, target):
        if self.view is not None:
            self._send(peer, [DESTINATION, 2, ident, target, *self.view])

    def _run(self):
        while not self.is_over:
            while self.todo:
                self.todo.popleft()()
            if not self.socket.poll(10):
                continue
            peer, body = self.socket.recv_multipart()
            m = msgpack.unpackb(body)
            if m[0] == RESOLVE:
                self.targets.setdefault(peer, set()).add(m[3])
                self._tell(peer, m[2], m[3])
            elif m[0] == LISTEN:
                self.peers[peer] = True
                self._send(peer, [PORTS, 2, self.ports])

    def _do(self, what):
        done = threading.Event()
        self.todo.append(lambda: (what(), done.set()))
        assert done.wait(5 * SLOW)

    def set_ports(self, ports):
        def go():
            self.ports = list(ports)
            for peer in self.peers:
                self._send(peer, [PORTS, 2, self.ports])
        self._do(go)

    def set_view(self, view):
        def go():
            self.view = view
            for peer, targets in self.targets.items():
                for t in targets:
                    self._tell(peer, 0, t)
        self._do(go)

    def close(self):
        self.is_over = True
        self.thread.join()
        self.context.destroy(linger=0)
        shutil.rmtree(self.dir, ignore_errors=True)


class Linked:
    """A weft-proxy at the link. `limits` is a memory file that several of them share."""

    def __init__(self, link, target, inbound=False, worker=0, limits=None, **env):
        self.socket = listener()
        self.port = self.socket.getsockname()[1]
        self.log_path = os.path.join(link.dir, "log-%d-%d" % (worker, self.port))
        fds = {"inbound" if inbound else "outbound": self.socket.fileno()}
        if limits is not None:
            fds["limits"] = limits
        settings = {
            "WEFT_FDS": ",".join("%s=%d" % f for f in fds.items()),
            "WEFT_WORKER": str(worker),
            "WEFT_RUN_DIR": link.dir,
            "WEFT_INBOUND_TARGET" if inbound else "WEFT_OUTBOUND_TARGET": "127.0.0.1:%d" % target,
            "WEFT_LOG": "debug",
        }
        settings.update({k: str(v) for k, v in env.items()})
        self.log_file = open(self.log_path, "wb")
        self.process = subprocess.Popen([os.path.join(BUILD, "bin", "weft-proxy")], env={**os.environ, **settings},
                                        pass_fds=list(fds.values()), stderr=self.log_file)
        end = time.monotonic() + 10 * SLOW
        while "ready" not in self.log() or "link is there" not in self.log():
            assert self.process.poll() is None and time.monotonic() < end, self.log()
            time.sleep(0.01)

    def log(self):
        with open(self.log_path, "rb") as f:
            return f.read().decode("utf-8", "replace")

    def url(self, path="/"):
        return "http://127.0.0.1:%d%s" % (self.port, path)

    def stop(self):
        """Drains; it must end well."""
        try:
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGTERM)
            return self.process.wait(15 * SLOW)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self.socket.close()
            self.log_file.close()
