"""Steady traffic between two pods, and what came of it: the programs (ordinary Python, they know nothing of the mesh),
the counters of a pod, and the killing of a process with the times of its return."""
import json
import os
import re
import signal
import time

from meshes import AT_ONCE, SLOW, wait_for

# A machine that is busy with other tests answers late: what is tested is the verdict, not the time it takes.
PATIENT = {"WEFT_RETRY_ASK_TIMEOUT": "1s"}

# Serves HTTP on 8080 and 8081 and a server-first echo on 9090. /slow takes 80 ms, /download never ends. SIGUSR1: how
# many requests of each kind it has begun to answer. Nobody listens on 7000.
SERVER = r'''
import collections, http.server, json, signal, socketserver, threading, time
counts, lock = collections.Counter(), threading.Lock()

class Web(http.server.BaseHTTPRequestHandler):
    wbufsize = -1  # head and body in one write: an answer has begun whole or not at all
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    def log_message(self, *a): pass
    def do_GET(self):
        if self.path == "/download":
            return self.download()
        if self.path == "/slow":
            time.sleep(0.08)
        with lock:
            counts[self.path] += 1
        self.send_response(200)
        self.send_header("Content-Length", "100")
        self.end_headers()
        self.wfile.write(b"x" * 100)
    def download(self):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        n = 0
        while True:
            self.wfile.write(b"%x\r\n" % 16384 + b"%08d" % n * 2048 + b"\r\n")
            self.wfile.flush()
            n += 1
            time.sleep(0.02)

class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b"hello\n")
        for line in self.rfile:
            self.wfile.write(line)

class Threads(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads, allow_reuse_address, request_queue_size = True, True, 128
    def handle_error(self, *a): pass

for port, handler in ((8080, Web), (8081, Web), (9090, Echo)):
    threading.Thread(target=Threads(("", port), handler).serve_forever, daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
print(json.dumps(["ready"]), flush=True)
while True:
    signal.sigwait([signal.SIGUSR1])
    with lock:
        print(json.dumps(["counts", counts]), flush=True)
'''

# Twelve keep-alive connections with quick requests, four with slow ones, a long echo, a long download; and new
# connections all the time, for a request and for an echo. A line of JSON for everything that breaks and for every new
# connection that worked. SIGUSR1: how far each is. SIGUSR2: end, and the sums.
CLIENT = r'''
import http.client, json, signal, socket, sys, threading, time
host = sys.argv[1]
lock, stop = threading.Lock(), threading.Event()
state = {}     # who: [answers with 200, when the last one that was begun after `begun` ended, begun]

def say(*what):
    with lock:
        print(json.dumps(what), flush=True)

def done(who, begun):
    with lock:
        n = state[who][0] if who in state else 0
        state[who] = [n + 1, time.monotonic(), begun]

def failed(who, begun, why):
    say("failed", who, begun, time.monotonic(), why)

def web(who, path, pause, fresh=False):
    c = None
    while not stop.is_set():
        begun = time.monotonic()
        try:
            if c is None or fresh:
                c = http.client.HTTPConnection(host, 8080, timeout=20)
            c.request("GET", path)
            r = c.getresponse()
            body = r.read()
            if r.status == 200 and body == b"x" * 100:
                done(who, begun)
                if fresh:
                    c.close()
                    say("worked", who, begun, time.monotonic())
            else:
                failed(who, begun, "%d %s" % (r.status, r.getheader("proxy-status")))
        except (OSError, http.client.HTTPException) as e:
            failed(who, begun, "reset " + repr(e))
            c.close()
            c = None
        time.sleep(pause)

def line(s, text):
    s.sendall(text)
    got = b""
    while not got.endswith(b"\n"):
        more = s.recv(100)
        if not more:
            raise OSError("end of file")
        got += more
    if text and got != text:
        raise OSError("not an echo: %r" % got)

def echo(who, times):
    while not stop.is_set():
        begun, n = time.monotonic(), 0
        try:
            with socket.create_connection((host, 9090), timeout=20) as s:
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                line(s, b"")
                while not stop.is_set() and n < times:
                    n += 1
                    line(s, b"%d\n" % n)
                    if times == 1:
                        s.shutdown(socket.SHUT_WR)
                        if s.recv(10):
                            raise OSError("something behind the end")
                        say("worked", who, begun, time.monotonic())
                    done(who, begun if times == 1 else time.monotonic())
                    time.sleep(0.02)
        except OSError as e:
            failed(who, begun, repr(e))
            time.sleep(0.01)

def download(who):
    while not stop.is_set():
        begun, n = time.monotonic(), 0
        try:
            c = http.client.HTTPConnection(host, 8081, timeout=20)
            c.request("GET", "/download")
            r = c.getresponse()
            if r.status != 200:
                raise OSError(r.status)
            while not stop.is_set():
                got = r.read(16384)
                if got != b"%08d" % n * 2048:
                    raise OSError("wrong or short at %d: %d" % (n, len(got)))
                n += 1
                done(who, time.monotonic())
        except (OSError, http.client.HTTPException) as e:
            failed(who, begun, repr(e))
            time.sleep(0.01)
        c.close()

threads = [threading.Thread(target=web, args=("web%d" % i, "/quick", 0.02)) for i in range(12)]
threads += [threading.Thread(target=web, args=("slow%d" % i, "/slow", 0)) for i in range(4)]
threads += [threading.Thread(target=web, args=("request", "/quick", 0.01, True)),
            threading.Thread(target=echo, args=("long-echo", 10**9)), threading.Thread(target=download, args=("download",))]
threads += [threading.Thread(target=echo, args=("new-echo%d" % i, 1)) for i in range(3)]
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGUSR2])
for t in threads:
    t.start()
say("ready")
while True:
    number = signal.sigwait([signal.SIGUSR1, signal.SIGUSR2])
    if number == signal.SIGUSR2:
        stop.set()
        for t in threads:
            t.join()
    say("state" if number == signal.SIGUSR1 else "end", state)
'''

KEPT = ["web%d" % i for i in range(12)] + ["slow%d" % i for i in range(4)]  # HTTP, one request at a time
LONG = ["long-echo", "download"]
NEW_ECHOES = ["new-echo%d" % i for i in range(3)]
ALL = KEPT + ["request"] + LONG + NEW_ECHOES


def lines(app):
    """What the program has said so far, whole lines only."""
    out = []
    for text in app.output().split("\n")[:-1]:
        try:
            out.append(json.loads(text))
        except ValueError:
            raise AssertionError("the program says: %s" % app.output()[-2000:])
    return out


def told(app, number, kind):
    """Sends a signal to the program and returns its answer."""
    before = sum(1 for x in lines(app) if x[0] == kind)
    os.kill(app.pid, number)

    def answer():
        found = [x for x in lines(app) if x[0] == kind]
        return found[before:] and found[before:][0]
    return wait_for(answer, "%s: %s" % (app.pod, kind), 30)[1]


class Traffic:
    def __init__(self, mesh, env=None):
        self.mesh = mesh
        ports = ["8080/http1", "8081/http1", "9090/opaque", "7000/http1"]
        self.server = mesh.run("server", ["/usr/bin/python3", mesh.python(SERVER)], ports,
                               env=dict(env or {}, **AT_ONCE))  # nobody listens on one of its ports
        wait_for(lambda: " server\n" in hosts(mesh), "the server's name")
        self.client = mesh.run("client", ["/usr/bin/python3", mesh.python(CLIENT), "server"], env=env)
        for app in (self.server, self.client):
            wait_for(lambda: ["ready"] in lines(app), app.pod + ": listens to signals", 20)
        self.goes_on(0)
        self.begun = time.monotonic()

    def state(self):
        return told(self.client, signal.SIGUSR1, "state")

    def goes_on(self, since, seconds=15):
        """Waits until everybody has finished something that was begun after that time."""
        def all_went_on():
            state = self.state()
            return all(w in state and state[w][2] > since for w in ALL)
        try:
            wait_for(all_went_on, "traffic of everybody", seconds)
        except AssertionError:
            raise AssertionError("%s\n%s" % (self.state(), self.failures(since)[-20:]))

    def failures(self, since=0):
        """[who, begun, ended, why] of all that ended later than `since`."""
        return [x[1:] for x in lines(self.client) if x[0] == "failed" and x[3] >= since]

    def first(self, whose, since):
        """When the first new connection that was begun after that time had done its work."""
        return min(x[3] for x in lines(self.client) if x[0] == "worked" and x[1] in whose and x[2] >= since)

    def end(self):
        """Ends the traffic: {who: answers}, and what the server has answered."""
        end = told(self.client, signal.SIGUSR2, "end")
        return {w: v[0] for w, v in end.items()}, told(self.server, signal.SIGUSR1, "counts")


def hosts(mesh):
    with open(os.path.join(mesh.state_dir, "hosts")) as f:
        return f.read()


# ---- killing ----

def restart_ms(owner, name):
    """The supervisor's own measure: from the death of a process to the ready of its successor."""
    run_dir = getattr(owner, "state_dir", None) and os.path.join(owner.run_dir, "control") or owner.run_dir
    with open(os.path.join(run_dir, "status")) as f:
        notes = next(t for t in f.read().splitlines() if t.startswith(name + " ")).split(" ")[6:]
    return int(dict(n.split("=", 1) for n in notes)["restart_ms"])


class Killed:
    def __init__(self, name, at, ready, restart_ms, pid):
        self.name, self.at, self.ready, self.restart_ms, self.pid = name, at, ready, restart_ms, pid


def kill(owner, name, seconds=10):
    """Kills a process of a pod (an App) or of the control plane (the Mesh) and waits until it is ready again."""
    row = owner.status()[name]
    pid, restarts = row["pid"], row["restarts"]
    assert row["state"] == "ready", (name, row)
    at = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    end = at + seconds * SLOW
    while True:
        row = owner.status().get(name)
        if row is not None and row["restarts"] > restarts and row["state"] == "ready":
            assert row["restarts"] == restarts + 1 and row["pid"] != pid
            return Killed(name, at, time.monotonic(), restart_ms(owner, name), row["pid"])
        assert time.monotonic() < end, "%s does not come back: %s" % (name, row)
        time.sleep(0.001)


def pids(owner):
    return {n: r["pid"] for n, r in owner.status().items()}


# ---- counters ----

SERIES = re.compile(r'^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$')
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def metrics(app):
    """[(name, labels, value)] of a pod's /metrics; waits for an admin port that is restarting."""
    def ask():
        done = app.exec("curl", "-sS", "--max-time", "5", "http://127.0.0.1:4191/metrics")
        return done.stdout if done.returncode == 0 and done.stdout.rstrip().endswith("# EOF") else None
    out = []
    for text in wait_for(ask, app.pod + ": /metrics").splitlines():
        m = SERIES.match(text)
        if m and not text.startswith("#"):
            out.append((m.group(1), dict(LABEL.findall(m.group(2) or "")), float(m.group(3))))
    return out


def total(series, name, **labels):
    """The sum of all series of that name with these labels."""
    got = sum(v for n, l, v in series if n == name and all(l.get(k) == w for k, w in labels.items()))
    return int(got)


def settled(ask, seconds=20):
    """What ask() says once it says the same after two more reports (one a second)."""
    last, since = ask(), time.monotonic()

    def same():
        nonlocal last, since
        now = ask()
        if now != last:
            last, since = now, time.monotonic()
        return time.monotonic() - since > 2.2
    wait_for(same, "counters that rest", seconds)
    return last
