"""A whole embedded mesh for a scenario: its own bridge, addresses, run and state directory.

    def test_x(mesh):                       # the fixture of conftest.py: up before, down after
        web = mesh.run("web", ["python3", "-m", "http.server", "8080"], ports=["8080"])
        client = mesh.client()
        assert client.http("http://web:8080/").status == 200

Several meshes may run at once, also beside one of the machine's owner: nothing is shared. Everything is
removed by Mesh.down(), which the fixture calls whatever happens; names begin with "wt".
"""
import glob
import json
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("WEFT_BUILD", os.path.join(ROOT, "build"))
WEFT = os.path.join(BUILD, "bin", "weft")
AT_ONCE = {"WEFT_AWAIT_APP": "false"}  # for pods whose program listens late or never: they serve all the same
SLOW = 5 if "ASAN_OPTIONS" in os.environ else 1  # sanitizer builds take their time


def wait_for(claim, what, seconds=10.0):
    """Calls claim() until it is true and returns what it returned; fails with the words after a while."""
    end = time.monotonic() + seconds * SLOW
    while True:
        got = claim()
        if got:
            return got
        assert time.monotonic() < end, "not in time: " + what
        time.sleep(0.03)


def children(pid):
    try:
        with open("/proc/%d/task/%d/children" % (pid, pid)) as f:
            return [int(p) for p in f.read().split()]
    except OSError:
        return []


def exe_name(pid):
    try:
        return os.path.basename(os.readlink("/proc/%d/exe" % pid))
    except OSError:
        return ""


def is_alive(pid):
    """Zombies count as gone: who reaps them is not ours to say."""
    try:
        with open("/proc/%d/stat" % pid) as f:
            return f.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def free_net():
    """A /20 of 10.216.0.0 .. 10.239.0.0 that no route of this machine touches."""
    routes = subprocess.run(["ip", "-4", "route", "show", "table", "all"], stdout=subprocess.PIPE,
                            text=True).stdout
    for _ in range(200):
        b, c = random.randint(216, 239), random.randint(0, 15) * 16
        if not re.search(r"\b10\.%d\." % b, routes):
            return "10.%d.%d.0/20" % (b, c)
    raise RuntimeError("no free network")


class Answer:
    def __init__(self, text):
        text = text.replace("\r\n", "\n")  # how it was read decides whether that was done already
        head, _, self.body = text.partition("\n\n")
        while head.startswith("HTTP/1.1 100") or head.startswith("HTTP/1.1 103"):
            head, _, self.body = self.body.partition("\n\n")
        lines = head.split("\n")
        m = re.match(r"HTTP/[\d.]+ (\d+)", lines[0])
        self.status = int(m.group(1)) if m else 0
        self.headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            self.headers[name.strip().lower()] = value.strip()

    def __repr__(self):
        return "Answer(%d, %r, %r)" % (self.status, self.headers, self.body[:200])


class App:
    """A program started with `weft run`."""

    def __init__(self, mesh, service, pod, process, out):
        self.mesh, self.service, self.pod, self.process, self.out = mesh, service, pod, process, out
        self.ns = "default"

    @property
    def netns(self):
        return "%s-%s-%s" % (self.mesh.bridge, self.ns, self.pod)

    @property
    def run_dir(self):
        return os.path.join(self.mesh.run_dir, "pods", self.pod)

    @property
    def pid(self):
        """The program's own process (not weft's, not the pod's)."""
        for pid in children(self.process.pid):
            name = exe_name(pid)
            if name and not name.startswith("weft") and name not in ("ip", "nft"):
                return pid
        return None

    def log(self):
        with open(os.path.join(self.mesh.state_dir, "log", self.pod + ".log")) as f:
            return f.read()

    def output(self):
        with open(self.out, errors="replace") as f:
            return f.read()

    def status(self):
        """The supervisor's table: {process: {pid, state, restarts, notes...}}."""
        rows = {}
        try:
            with open(os.path.join(self.run_dir, "status")) as f:
                lines = f.read().splitlines()[1:]
        except OSError:
            return rows
        for line in lines:
            w = line.split(" ")
            rows[w[0]] = {"pid": int(w[1]), "state": w[2], "restarts": int(w[3]),
                          "since_ms": int(w[4]), "notes": dict(n.split("=", 1) for n in w[6:])}
        return rows

    def wait_started(self, seconds=30):
        def started():
            assert self.process.poll() is None, "weft run ended with %d:\n%s" % (
                self.process.returncode, self.output())
            return self.pid
        wait_for(started, "%s: program started\n%s" % (self.pod, self.output()), seconds)
        return self

    def exec(self, *argv, timeout=20, check=False, user="nobody", stdin=None):
        """Runs a command inside the pod as the program would: its network, its /etc/hosts, not Weft's uid."""
        return subprocess.run(
            ["nsenter", "-t", str(self.pid), "-n", "-m", "--", "setpriv", "--reuid", user,
             "--regid", "nogroup", "--clear-groups", *argv],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=timeout * SLOW,
            check=check, input=stdin)

    def popen(self, *argv, **kw):
        return subprocess.Popen(["nsenter", "-t", str(self.pid), "-n", "-m", "--", "setpriv", "--reuid",
                                 "nobody", "--regid", "nogroup", "--clear-groups", *argv], **kw)

    def http(self, url, *curl_args, timeout=15):
        done = self.exec("curl", "-sS", "-i", "--max-time", str(timeout * SLOW), *curl_args, url,
                         timeout=timeout + 5)
        assert done.returncode == 0 or done.stdout, "curl %s: %s" % (url, done.stderr)
        return Answer(done.stdout)

    def stop(self, number=signal.SIGTERM, seconds=15):
        """Ends the program the way a person would and returns the exit code of weft run."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(seconds * SLOW)


class Mesh:
    def __init__(self, env=None):
        self.dir = tempfile.mkdtemp(prefix="wt")
        os.chmod(self.dir, 0o755)
        self.bridge = os.path.basename(self.dir).lower().replace("_", "x")[:9]
        self.run_dir = os.path.join(self.dir, "run")
        self.state_dir = os.path.join(self.dir, "state")
        self.net = free_net()
        self.env = dict(os.environ, WEFT_RUN=self.run_dir, **(env or {}))
        self.apps = []
        self.count = self.files = 0

    # ---- the command ----

    def weft(self, *argv, check=True, stdin=None, timeout=60):
        done = subprocess.run([WEFT, *argv], env=self.env, input=stdin, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=timeout * SLOW)
        if check:
            assert done.returncode == 0, "weft %s: code %d\n%s%s\n%s" % (
                " ".join(argv), done.returncode, done.stdout, done.stderr, self.log_tail())
        return done

    def json(self, *argv):
        return json.loads(self.weft(*argv, "-o", "json").stdout)

    def sql(self, text):
        return self.json("sql", text)

    def apply(self, text, wait=True):
        return self.weft("apply", "-f", "-", *(["--wait"] if wait else []), stdin=text)

    def log_tail(self, n=3000):
        try:
            with open(os.path.join(self.state_dir, "log", "control.log")) as f:
                return f.read()[-n:]
        except OSError:
            return "(no control plane log)"

    # ---- life ----

    def up(self):
        self.weft("up", "--state", self.state_dir, "--net", self.net, "--bridge", self.bridge)
        return self

    def down(self):
        for app in self.apps:
            if app.process.poll() is None:
                app.process.terminate()
        for app in self.apps:
            try:
                app.process.wait(15 * SLOW)
            except subprocess.TimeoutExpired:
                app.process.kill()
                app.process.wait()
        done = self.weft("down", "--purge", "--state", self.state_dir, "--net", self.net, "--bridge",
                         self.bridge, check=False)
        left = self.leftovers()
        shutil.rmtree(self.dir, ignore_errors=True)
        assert done.returncode == 0, done.stderr
        assert not left, left

    def leftovers(self):
        """What of this mesh is still on the machine: namespaces, interfaces, rules, directories, processes."""
        left = ["namespace " + os.path.basename(p)
                for p in glob.glob("/run/netns/%s-*" % self.bridge)]
        links = subprocess.run(["ip", "-o", "link"], stdout=subprocess.PIPE, text=True).stdout
        left += ["link " + m for m in re.findall(r"^\d+: (%s[^:@]*)" % self.bridge, links, re.M)]
        tables = subprocess.run(["nft", "list", "tables"], stdout=subprocess.PIPE, text=True).stdout
        left += ["table " + t for t in tables.splitlines() if t.endswith("weft_" + self.bridge)]
        if os.path.exists(self.run_dir):
            left.append(self.run_dir)
        for path in glob.glob("/proc/[0-9]*/environ"):
            try:
                with open(path, "rb") as f:
                    if b"WEFT_RUN_DIR=" + self.run_dir.encode() in f.read():
                        left.append("process " + path.split("/")[2])
            except OSError:
                pass
        return left

    # ---- programs ----

    def run(self, service, argv, ports=(), replica=None, options=(), wait=True, env=None):
        self.count += 1
        replica = replica or str(self.count)
        out = os.path.join(self.dir, "%s-%s.out" % (service, replica))
        command = [WEFT, "run", "--as", service, "--replica", replica, "--user", "nobody"]
        for port in ports:
            command += ["--port", str(port)]
        command += [*options, "--", *argv]
        with open(out, "w") as f:
            process = subprocess.Popen(command, env=dict(self.env, **(env or {})), stdin=subprocess.DEVNULL,
                                       stdout=f, stderr=subprocess.STDOUT, start_new_session=True, cwd="/")
        app = App(self, service, "%s-%s" % (service, replica), process, out)
        self.apps.append(app)
        if wait:
            app.wait_started()
        return app

    def client(self, name="client"):
        """A pod that serves nothing: somewhere to send requests from."""
        return self.run(name, ["sleep", "100000"])

    def python(self, source):
        """A file with this program that the user of the programs can read."""
        self.files += 1
        path = os.path.join(self.dir, "program%d.py" % self.files)
        with open(path, "w") as f:
            f.write(source)
        os.chmod(path, 0o644)
        return path

    def status(self):
        """The control plane's table of processes."""
        rows = {}
        try:
            with open(os.path.join(self.run_dir, "control", "status")) as f:
                for line in f.read().splitlines()[1:]:
                    w = line.split(" ")
                    rows[w[0]] = {"pid": int(w[1]), "state": w[2], "restarts": int(w[3])}
        except OSError:
            pass
        return rows
