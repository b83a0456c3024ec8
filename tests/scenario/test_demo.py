"""deploy/demo: it does its job, and nothing of it is left, however it ends. Short runs on names of its own."""
import json
import os
import pty
import select
import signal
import subprocess
import time

import pytest

from meshes import BUILD, ROOT, Mesh, is_alive, wait_for

DEMO = os.path.join(ROOT, "deploy", "demo")


@pytest.fixture
def place():
    """Names for a demo of this test's own; afterwards nothing may be left of it."""
    m = Mesh()
    m.argv = [DEMO, "--build", BUILD, "--run", m.run_dir, "--bridge", m.bridge, "--net", m.net]
    m.env["TMPDIR"] = m.dir  # where the demo makes its state directory
    try:
        yield m
    finally:
        m.weft("down", "--purge", "--net", m.net, "--bridge", m.bridge, "--state", m.state_dir, check=False)
        subprocess.run(["rm", "-rf", "--one-file-system", m.dir], check=False)


def left(m):
    return m.leftovers() + [f for f in os.listdir(m.dir) if f.startswith("weft-demo-")]


def conductor(m):
    """The demo's process and all below it."""
    pids = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/cmdline" % pid, "rb") as f:
                if m.bridge.encode() in f.read():
                    pids.append(int(pid))
        except OSError:
            pass
    return pids


def test_json_run(place):
    done = subprocess.run([*place.argv, "--seconds", "12", "--json"], env=place.env, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=180)
    assert done.returncode == 0, done.stderr
    table = json.loads(done.stdout)
    services = {s["name"]: s for s in table["services"]}
    assert set(services) == {"web", "books", "prices", "ledger"}
    for s in services.values():
        assert {"name", "success_rate", "rps", "p50_ms", "p95_ms", "p99_ms", "mtls_share", "retries"} <= set(s)
    assert services["books"]["success_rate"] < 1.0 and services["books"]["retries"] > 0
    assert services["web"]["success_rate"] > 0.995 and services["web"]["mtls_share"] == 1.0
    assert services["ledger"]["requests"] == 0 and services["ledger"]["mtls_share"] == 1.0  # of its connections
    assert {(e["source"], e["service"]) for e in table["edges"]} >= {("load", "web"), ("web", "books"),
                                                                    ("web", "prices")}
    assert len(table["pods"]) == 6 and all(p["processes"] == 6 and p["pss_kib"] > 1000 for p in table["pods"])
    assert not left(place)


def test_live_table_and_ctrl_c(place):
    pid, fd = pty.fork()
    if pid == 0:
        os.environ.update(place.env)
        os.execv(place.argv[0], place.argv)
    got = b""
    end = time.monotonic() + 90
    while b"SUCCESS" not in got or got.count(b"web ") < 2:
        assert time.monotonic() < end, got[-2000:]
        if select.select([fd], [], [], 0.5)[0]:
            got += os.read(fd, 65536)
    os.write(fd, b"\x03")
    end = time.monotonic() + 60
    while True:  # the terminal is read, or writers to it would block
        if select.select([fd], [], [], 0.1)[0]:
            try:
                got += os.read(fd, 65536)
            except OSError:
                pass
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        assert time.monotonic() < end, got[-2000:]
    os.close(fd)
    assert os.WEXITSTATUS(status) == 0, got[-2000:]
    assert not left(place)


@pytest.mark.parametrize("delay", [0.3, 1.5, 3.0])
def test_a_killed_demo_is_swept_by_the_next(place, delay):
    p = subprocess.Popen([*place.argv, "--seconds", "100", "--json"], env=place.env, stdout=subprocess.DEVNULL,
                         stderr=subprocess.DEVNULL)
    try:
        p.wait(delay)
    except subprocess.TimeoutExpired:
        pass
    p.kill()
    p.wait()
    # Its programs end with it; the control plane waits for the next start.
    wait_for(lambda: not [c for c in conductor(place) if is_alive(c)], "the demo's programs end", 20)
    done = subprocess.run([*place.argv, "--seconds", "1", "--json"], env=place.env, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120)
    assert "services" in json.loads(done.stdout), done.stderr
    assert not left(place)


def test_sigterm_ends_it_cleanly(place):
    p = subprocess.Popen([*place.argv, "--seconds", "100", "--json"], env=place.env, stdout=subprocess.DEVNULL,
                         stderr=subprocess.PIPE, text=True)
    for line in p.stderr:
        if "running for" in line:
            break
    p.send_signal(signal.SIGTERM)
    assert p.wait(60) == 130
    p.stderr.close()
    assert not left(place)
