"""The control plane is killed and stays away: what runs goes on, whatever of a pod dies comes back with what it knows,
a renewal waits, what was never heard of is refused with a code of its own; and at its return all is as before."""
import json
import os
import signal
import subprocess
import time

import pytest

from meshes import SLOW, WEFT, Mesh, is_alive, wait_for
from traffic import KEPT, LONG, NEW_ECHOES, PATIENT, Traffic, hosts, kill, metrics, pids, total

LIFETIME = 40  # s; renewed at half of it, a try takes some seconds when nobody answers
SERVICES = "".join("""
apiVersion: v1
kind: Service
metadata: {name: stranger%d}
spec: {ports: [{port: 80, name: http}, {port: 81, name: other}]}
---""" % n for n in range(2))
WORKERS = ["weft-link", "weft-tls", "weft-proxy.0", "weft-retry", "weft-telemetry"]


class ControlPlane:
    """The supervisor of a mesh's control plane: killed, and started again as its machine's init would."""

    def __init__(self, mesh):
        with open(os.path.join(mesh.run_dir, "supervisor.pid")) as f:
            self.pid = int(f.read().split()[0])
        with open("/proc/%d/environ" % self.pid, "rb") as f:
            self.env = dict(v.decode().split("=", 1) for v in f.read().split(b"\0") if b"=" in v)
        with open("/proc/%d/cmdline" % self.pid, "rb") as f:
            self.argv = [a.decode() for a in f.read().split(b"\0")[:-1]]
        self.exe = os.readlink("/proc/%d/exe" % self.pid)
        self.mesh, self.process = mesh, None

    def kill(self):
        workers = [p for n, p in pids(self.mesh).items()]
        os.kill(self.pid, signal.SIGKILL)
        wait_for(lambda: not any(is_alive(p) for p in workers), "its children end with it")

    def start(self):
        with open(os.path.join(self.mesh.state_dir, "log", "control.log"), "a") as log:
            self.process = subprocess.Popen(
                ["setpriv", "--reuid", "2103", "--regid", "2103", "--clear-groups", self.exe, *self.argv[1:]],
                env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")
        with open("/proc/%d/stat" % self.process.pid) as f:
            began = f.read().rsplit(")", 1)[1].split()[19]
        with open(os.path.join(self.mesh.run_dir, "supervisor.pid"), "w") as f:  # the command looks for it there
            f.write("%d %s\n" % (self.process.pid, began))

    def end(self):
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(10 * SLOW)


@pytest.fixture
def control():
    m = Mesh(env={"WEFT_CERTIFICATE_LIFETIME": "%ds" % LIFETIME, "WEFT_LOG": "debug"})
    c = None
    try:
        c = ControlPlane(m.up())
        yield c
    finally:
        if c is not None:
            c.end()
        m.down()


def ends_at(app):
    """When the pod's certificate ends, seconds since 1970."""
    return total(metrics(app), "control_identity_cert_expiration_timestamp_seconds")


def revision(mesh):
    return mesh.sql("select max(revision) as r from mesh_sessions")[0]["r"], mesh.sql(
        "select min(acked_revision) as r from mesh_sessions")[0]["r"]


ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: told}
spec:
  parentRefs: [{kind: Service, group: core, name: web, port: 8080}]
  rules:
  - filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-version, value: "%d"}]}}]
    backendRefs: [{kind: Service, name: web, port: 8080}]
"""


@pytest.fixture
def small(mesh):
    web = mesh.run("web", ["/usr/bin/python3", "-m", "http.server", "8080"], ["8080/http1"])
    wait_for(lambda: " web\n" in hosts(mesh), "its name")
    client = mesh.client()
    wait_for(lambda: client.http("http://web:8080/").status == 200, "it serves")
    mesh.web, mesh.caller = web, client
    return mesh


def test_wait_names_a_laggard(small):
    """A link that stands still is named; when it goes on, the wait ends."""
    small.apply(ROUTE % 1)
    assert small.caller.http("http://web:8080/").headers.get("x-version") == "1", "in force when apply --wait returns"
    link = small.caller.status()["weft-link"]["pid"]
    os.kill(link, signal.SIGSTOP)
    try:
        late = small.weft("apply", "-f", "-", "--wait", "--timeout", "1500ms", stdin=ROUTE % 2, check=False)
        said = late.stdout + late.stderr
        assert late.returncode == 3 and "default/" + small.caller.pod in said, said
        assert "default/" + small.web.pod not in said, "the other has applied it"
        waiting = subprocess.Popen([WEFT, "apply", "-f", "-", "--wait"], env=small.env, stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        waiting.stdin.write(ROUTE % 3)
        waiting.stdin.close()
        wait_for(lambda: small.sql("select json from mesh_objects where name='told'")[0]["json"].count('"3"'), "applied")
        assert waiting.poll() is None, waiting.stdout.read()
    finally:
        os.kill(link, signal.SIGCONT)
    assert waiting.wait(10 * SLOW) == 0, waiting.stdout.read()
    waiting.stdout.close()
    assert small.caller.http("http://web:8080/").headers.get("x-version") == "3"


def test_check_names_who_is_silent_and_who_lags():
    """Only problems are said: not of a pod that is well, but of one that applies nothing, and of one that says nothing."""
    m = Mesh(env={"WEFT_LEASE": "60s"})
    try:
        m.up()
        web = m.run("web", ["/usr/bin/python3", "-m", "http.server", "8080"], ["8080/http1"])
        client = m.client()
        wait_for(lambda: client.http("http://web:8080/").status == 200, "it serves")

        def said():
            rows = json.loads(m.weft("check", "-o", "json", check=False).stdout)["checks"]
            return {r["about"]: r["text"] for r in rows if r["check"] == "link"}
        assert said() == {}
        stopped = [  # the supervisors first: they would end a worker that stands still
            app.status()[name]["pid"] for app, name in ((client, "weft-supervisor"), (web, "weft-supervisor"),
                                                        (client, "weft-proxy.0"), (web, "weft-link"))]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            m.apply(ROUTE % 1, wait=False)
            wait_for(lambda: set(said()) == {"default/" + web.pod, "default/" + client.pod}, "both are named", 40)
            assert "last heard" in said()["default/" + web.pod] and "has applied revision" in said()["default/" + client.pod]
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        wait_for(lambda: said() == {}, "all is well again", 30)
    finally:
        m.down()


def test_what_was_acknowledged_survives_a_kill(small):
    """The broker dies in the moment in which it has said yes: the change is there, and the pods get it."""
    for n in range(4):
        small.apply(ROUTE % n, wait=False)
        os.kill(small.status()["weft-broker"]["pid"], signal.SIGKILL)
        wait_for(lambda: small.caller.http("http://web:8080/").headers.get("x-version") == str(n), "version %d" % n, 15)
        wait_for(lambda: small.status()["weft-broker"]["state"] == "ready", "the broker")
        assert len(small.sql("select 1 from mesh_changes where name='told'")) == n + 1


def test_all_goes_on_without_the_control_plane(control, capsys):
    m = control.mesh
    m.apply(SERVICES)
    t = Traffic(m, PATIENT)
    pods = [t.client, t.server]
    for app in pods:
        wait_for(lambda: os.path.exists(os.path.join(m.state_dir, "pods", app.pod, "snapshot")), "a snapshot")
    m.apply(SERVICES)
    first = {app.pod: ends_at(app) for app in pods}
    before = revision(m)
    epoch = m.sql("select count(*) as n from mesh_events where kind='MESH_BEGUN'")
    failed = {app.pod: renewals_failed(app) for app in pods}
    control.kill()
    away = time.monotonic()
    t.goes_on(time.monotonic())
    assert not t.failures(t.begun)

    # Who asks for what nobody knows is told so, and soon; HTTP with the code, anything else by a reset.
    begun = time.monotonic()
    answer = t.client.http("http://stranger0/")
    assert answer.status == 503 and "W1006" in answer.headers["proxy-status"], answer
    assert time.monotonic() - begun < 2.0 * SLOW
    begun = time.monotonic()
    assert t.client.http("http://stranger0/").status == 503, "and the next at once"
    assert time.monotonic() - begun < 0.5 * SLOW
    silent = t.client.exec("/usr/bin/python3", "-c", "import socket, sys\n"
                           "s = socket.create_connection(('stranger1', 81), timeout=5)\n"
                           "try: s.recv(1)\nexcept ConnectionResetError: sys.exit(77)")
    assert silent.returncode == 77, (silent.returncode, silent.stderr)
    wait_for(lambda: total(metrics(t.client), "weft_connection_close_total", reason="UNRESOLVED") == 1, "counted")

    # Each worker of both dies and is back with what it knew: the view from disk, key and certificate from the vault.
    for name in WORKERS:
        for app in pods:
            k = kill(app, name)
            t.goes_on(k.ready)
            failures = t.failures(k.at)
            mine = KEPT + ["request"] if app is t.client else []
            allowed = mine + LONG + NEW_ECHOES if name == "weft-proxy.0" else \
                [f[0] for f in failures if f[0] in NEW_ECHOES and f[1] < k.at] if name == "weft-tls" else []
            assert all(f[0] in allowed for f in failures), (name, app.pod, failures)
    for app in pods:
        ready = app.exec("curl", "-sS", "-w", "%{http_code}", "http://127.0.0.1:4191/ready").stdout
        assert ready.endswith("200"), ready
    quiet_since = time.monotonic()

    # The half of the certificates' life is over: renewals are tried, and fail.
    for app in pods:
        wait_for(lambda: renewals_failed(app) > failed[app.pod], app.pod + ": its renewal fails", LIFETIME / 2 + 8)
        assert ends_at(app) == first[app.pod] and time.time() < first[app.pod]
    control.start()
    back = time.monotonic()
    for app in pods:
        wait_for(lambda: ends_at(app) > first[app.pod], app.pod + ": renewed", 15)
    renewed = time.monotonic() - back
    wait_for(lambda: live(m) == {app.pod: 1 for app in pods}, "the sessions are resumed: %s" % live(m), 15)
    resumed = time.monotonic() - back
    assert m.sql("select count(*) as n from mesh_events where kind='MESH_BEGUN'") == epoch, "the epoch is the same"
    assert m.sql("select count(*) as n from mesh_events where kind in ('SESSION_LOST', 'SESSION_ENDED')")[0]["n"] == 0
    after = revision(m)
    assert after[0] >= before[0] and after[1] >= before[1], (before, after)

    # What was lost is found now, and what changes is applied by all.
    m.apply(SERVICES.replace("port: 81", "port: 82"), wait=True)
    wait_for(lambda: "W1006" not in t.client.http("http://stranger0/").headers.get("proxy-status", ""),
             "the stranger is known", 10)
    wait_for(lambda: time.time() > max(first.values()) + 1, "the first certificates have expired", LIFETIME)
    t.goes_on(time.monotonic())
    assert not t.failures(quiet_since)
    for app in pods:
        r = m.sql("select count(*) as n, sum(current) as c from mesh_certificates where pod='%s'" % app.pod)[0]
        assert r["n"] >= 2 and r["c"] == 1, r
    with capsys.disabled():
        print("\naway for %.1f s; back: renewed in %.0f ms, sessions resumed in %.0f ms" % (
            back - away, renewed * 1000, resumed * 1000))


def renewals_failed(app):
    return app.log().count("certificate not issued code=UNAVAILABLE")


def live(mesh):
    """Who has said something within the last four seconds."""
    return {r["pod"]: r["n"] for r in mesh.sql(
        "select pod, count(*) as n from mesh_sessions where last_heard > strftime('%Y-%m-%dT%H:%M:%SZ','now','-4 seconds')"
        " group by pod")}
