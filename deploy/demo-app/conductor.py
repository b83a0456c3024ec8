"""Conducts the demo: a control plane, an application of five services, load, a table; then nothing again.

Everything is made and removed by the weft command; what this program knows is only which programs to run.
A demo that was killed leaves pods that die with it (PR_SET_PDEATHSIG) and a control plane that the next
start, or `weft down --run /run/weft-demo --purge`, removes.
"""
import argparse
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = "/usr/bin/python3"  # one that every user may execute, wherever this one was started from
SERVICES = ["web", "books", "prices", "ledger"]
PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None, use_errno=True)


class Failed(Exception):
    """One sentence for the person who runs the demo."""


def say(text):
    print("demo: " + text, file=sys.stderr, flush=True)


def die_with_parent():
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Demo:
    def __init__(self, args):
        self.args = args
        self.weft = os.path.join(args.build, "bin", "weft")
        self.env = dict(os.environ, WEFT_RUN=args.run)
        self.env.pop("WEFT_BIN_DIR", None)
        self.prefix = "weft-demo-%s-" % args.bridge
        self.pods = []  # (name, Popen, log file)
        self.state = None
        self.is_up = False

    def call(self, *argv, check=True, stdin=None, timeout=90):
        done = subprocess.run([self.weft, *argv], env=self.env, input=stdin, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout)
        if check and done.returncode != 0:
            raise Failed("weft %s: %s" % (" ".join(argv), done.stderr.strip() or "failed"))
        return done

    # ---- up ----

    def sweep(self):
        """What a demo that crashed left behind. Harmless when there is nothing."""
        self.call("down", "--quiet", "--purge", "--bridge", self.args.bridge, "--net", self.args.net,
                  "--state", self.args.run + ".no-state")
        for entry in os.scandir(tempfile.gettempdir()):
            # Only one demo of this bridge runs at a time (only_one), so such a directory is a leftover.
            if entry.name.startswith(self.prefix) and entry.is_dir(follow_symlinks=False) and \
                    entry.stat(follow_symlinks=False).st_uid in (0, 2103):
                subprocess.run(["rm", "-rf", "--one-file-system", entry.path], check=False)

    def up(self):
        self.sweep()
        self.state = tempfile.mkdtemp(prefix=self.prefix)
        self.is_up = True
        say("starting the control plane (state %s)" % self.state)
        self.call("up", "--quiet", "--state", self.state, "--net", self.args.net,
                  "--bridge", self.args.bridge)

    def start(self, service, replica, ports, *argv):
        log = open(os.path.join(self.state, "app-%s-%s.log" % (service, replica)), "w+")
        command = [self.weft, "run", "--as", service, "--replica", replica]
        for port in ports:
            command += ["--port", port]
        command += ["--user", "nobody", "--", PYTHON, "-u", *argv]
        process = subprocess.Popen(command, env=self.env, stdin=subprocess.DEVNULL, stdout=log,
                                   stderr=log, cwd="/", preexec_fn=die_with_parent,
                                   start_new_session=True)
        self.pods.append(("%s-%s" % (service, replica), process, log))

    def program(self, name):
        """A copy that the user of the programs may read, wherever the clone lies."""
        path = os.path.join(self.state, "app", name)
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        with open(os.path.join(HERE, name)) as source, open(path, "w") as copy:
            copy.write(source.read())
        os.chmod(path, 0o644)
        return path

    def start_application(self):
        say("starting the application: " + ", ".join(SERVICES) + " and visitors")
        self.start("ledger", "1", ["7000/opaque"], self.program("ledger.py"))
        self.start("books", "1", ["8080"], self.program("books.py"))
        self.start("prices", "1", ["8080"], self.program("prices.py"), "2")
        self.start("prices", "2", ["8080"], self.program("prices.py"), "80")
        self.start("web", "1", ["8080"], self.program("web.py"))
        self.wait_serving(5)
        with open(os.path.join(HERE, "mesh.yaml")) as f:
            self.call("apply", "--wait", "--timeout", "20s", "--reason", "demo", "-f", "-",
                      stdin=f.read())
        self.start("load", "1", [], self.program("load.py"), str(self.args.rate))
        self.wait_serving(6)

    def wait_serving(self, count):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            self.check_pods()
            done = self.call("get", "sessions", "-o", "json", check=False)
            if done.returncode == 0:
                serving = [s for s in json.loads(done.stdout) if s["serving"]]
                if len(serving) >= count:
                    return
            time.sleep(0.2)
        raise Failed("not every pod serves after a minute: weft check says\n" +
                     self.call("check", check=False).stdout)

    def check_pods(self):
        for name, process, log in self.pods:
            if process.poll() is not None:
                log.seek(0)
                raise Failed("%s ended with code %d:\n%s" % (name, process.returncode,
                                                            log.read()[-2000:]))

    # ---- look ----

    def ask(self, *argv):
        done = self.call(*argv, "-o", "json", check=False)
        try:
            return json.loads(done.stdout)
        except ValueError:
            return None

    def services(self, window):
        rows = self.ask("stat", "--window", "%ds" % window) or []
        keys = ["success_rate", "rps", "p50_ms", "p95_ms", "p99_ms", "mtls_share", "retries",
                "requests", "connections"]
        return [dict({"name": r["name"]}, **{k: r.get(k) for k in keys}) for r in rows
                if r["name"] in SERVICES]

    def table(self, window):
        rows = self.services(window)
        lines = ["%-8s %9s %8s %8s %8s %8s %6s %8s" % ("SERVICE", "SUCCESS", "RPS", "P50", "P95",
                                                       "P99", "MTLS", "RETRIES")]

        def cell(value, pattern, factor=1.0):
            return "-" if value is None else pattern % (value * factor)

        for r in rows:
            tcp = r["requests"] == 0
            lines.append("%-8s %9s %8s %8s %8s %8s %6s %8s" % (
                r["name"], cell(r["success_rate"], "%.2f%%", 100),
                "tcp" if tcp else cell(r["rps"], "%.1f"),
                cell(r["p50_ms"], "%.1f"), cell(r["p95_ms"], "%.1f"), cell(r["p99_ms"], "%.1f"),
                cell(r["mtls_share"], "%.0f%%", 100), "-" if tcp else r["retries"]))
        return lines

    def show_live(self):
        tty = sys.stdout.isatty()
        began = time.monotonic()
        while self.args.seconds is None or time.monotonic() - began < self.args.seconds:
            self.check_pods()
            lines = self.table(30)
            lines += ["", "Times in ms over the last 30 s. The mesh: WEFT_RUN=%s %s stat|edges|check|events"
                      % (self.args.run, self.weft), "Ctrl-C ends the demo and removes all of it."]
            if tty:
                sys.stdout.write("\033[H\033[2J")
            sys.stdout.write("\n".join(lines) + "\n")
            sys.stdout.flush()
            time.sleep(1 if tty else 10)

    def run_quietly(self):
        end = time.monotonic() + self.args.seconds
        while time.monotonic() < end:
            self.check_pods()
            time.sleep(min(1.0, max(0.0, end - time.monotonic())))

    def final(self):
        window = max(5, min(3600, int(self.args.seconds or 60)))
        weights = {}
        for row in (self.ask("check") or {}).get("processes", []):
            weights.setdefault(row["pod"], {})[row["process"]] = row["pss_kib"]
        pods = [{"name": pod, "processes": len(rows) - 1, "pss_kib": rows.get("(all)")}
                for pod, rows in sorted(weights.items()) if not pod.startswith("(")]
        return {"services": self.services(window),
                "edges": self.ask("edges", "--window", "%ds" % window) or [], "pods": pods}

    # ---- down ----

    def down(self):
        if not self.is_up:
            return
        for _, process, _ in reversed(self.pods):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        end = time.monotonic() + 15
        for _, process, log in self.pods:
            try:
                process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            log.close()
        done = self.call("down", "--quiet", "--purge", check=False)
        if done.returncode != 0:
            say("weft down: " + done.stderr.strip())
        subprocess.run(["rm", "-rf", "--one-file-system", self.state], check=False)
        self.is_up = False


def judge(result):
    """What is wrong with the final table; an empty list means that the mesh did its job."""
    wrong = []
    by_name = {s["name"]: s for s in result["services"]}
    for name in SERVICES:
        if name not in by_name:
            wrong.append("service %s was not seen" % name)
    for name in ("web", "books", "prices"):
        s = by_name.get(name)
        if s is None:
            continue
        if not s["requests"]:
            wrong.append("%s had no request" % name)
        elif s["mtls_share"] != 1.0:
            wrong.append("%s: share of mTLS is %s" % (name, s["mtls_share"]))
    if by_name.get("books") and not by_name["books"]["retries"]:
        wrong.append("nothing was retried, though books fails now and then")
    if by_name.get("web") and (by_name["web"]["success_rate"] or 0) < 0.995:
        wrong.append("web succeeded for only %s of its visitors" % by_name["web"]["success_rate"])
    ledger = by_name.get("ledger")
    if ledger and not ledger["connections"]:
        wrong.append("nobody was connected to the ledger")
    elif ledger and ledger["mtls_share"] != 1.0:
        wrong.append("ledger: share of mTLS (of its connections) is %s" % ledger["mtls_share"])
    if len(result["pods"]) < 6:
        wrong.append("only %d of 6 pods were seen" % len(result["pods"]))
    return wrong


def only_one(bridge):
    """An abstract socket: gone with its owner, however that ends, and no file."""
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        lock.bind("\0weft-demo-" + bridge)
    except OSError:
        raise Failed("another demo runs on this machine")
    return lock


def interrupted(*_):
    raise KeyboardInterrupt


def conduct(demo, args):
    demo.up()
    demo.start_application()
    if not args.json:
        demo.show_live()
        return 0
    say("running for %d s" % args.seconds)
    demo.run_quietly()
    result = demo.final()
    wrong = judge(result)
    for text in wrong:
        say("wrong: " + text)
    print(json.dumps(result, indent=2), flush=True)
    return 1 if wrong else 0


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--build", required=True)
    p.add_argument("--seconds", type=float)
    p.add_argument("--json", action="store_true")
    p.add_argument("--rate", type=float, default=40)
    p.add_argument("--run", default="/run/weft-demo")
    p.add_argument("--bridge", default="weftdemo")
    p.add_argument("--net", default="10.215.0.0/16")
    args = p.parse_args()
    if args.json and args.seconds is None:
        p.error("--json needs --seconds")
    demo = Demo(args)
    code = 1
    signal.signal(signal.SIGTERM, interrupted)
    signal.signal(signal.SIGHUP, interrupted)
    try:
        lock = only_one(args.bridge)
        code = conduct(demo, args)
        lock.close()
    except KeyboardInterrupt:
        say("ending")
        code = 0 if not args.json else 130
    except Failed as e:
        say(str(e))
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not stop the tidying
        demo.down()
    return code


sys.exit(main())
