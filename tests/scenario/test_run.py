"""What a person can do: programs that know nothing of a mesh, run in one, with the real processes."""
import json
import os
import re
import signal
import sqlite3
import subprocess
import time

import pytest

from meshes import ROOT, wait_for

WEB = r'''
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class H(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 8192
    def do_GET(self):
        body = ("%s %s\n" % (sys.argv[1], self.headers.get("l5d-client-id"))).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *a): pass
ThreadingHTTPServer.request_queue_size = 128
s = ThreadingHTTPServer(("", 8080), H)
print("listening", flush=True)
s.serve_forever()
'''

BANNER = r'''
import socketserver
class H(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b"220 ready\n")
        for line in self.rfile:
            self.wfile.write(b"echo " + line)
class S(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
s = S(("", 7000), H)
print("listening", flush=True)
s.serve_forever()
'''

TALK = r'''
import socket
s = socket.create_connection(("bank", 7000), timeout=10)
f = s.makefile("rwb")
print(f.readline().decode().strip())
f.write(b"hello\n"); f.flush()
print(f.readline().decode().strip())
'''


def listening(app):
    wait_for(lambda: "listening" in app.output(), "%s listens" % app.pod, 20)
    return app


def serve(mesh, name="web", **kw):
    program = mesh.python(WEB)
    return listening(mesh.run(name, ["/usr/bin/python3", "-u", program, name], ports=["8080"], **kw))


@pytest.fixture(scope="module")
def town(shared_mesh):
    """web (HTTP), bank (the server speaks first) and a client."""
    m = shared_mesh
    m.web = serve(m)
    m.bank = listening(m.run("bank", ["/usr/bin/python3", "-u", m.python(BANNER)], ports=["7000/opaque"]))
    m.me = m.client("me")
    return m


@pytest.mark.asan
def test_http_by_name_is_encrypted_counted_and_visible(town):
    for url in ("http://web:8080/", "http://web.default:8080/", "http://web.default.svc.cluster.local:8080/x"):
        answer = town.me.http(url)
        assert answer.status == 200 and answer.body.startswith("web "), answer
    for _ in range(17):
        assert town.me.http("http://web:8080/").status == 200

    def counted():
        rows = [r for r in town.json("stat") if r["name"] == "web"]
        return rows and rows[0]["success_rate"] == 1.0 and rows[0]["mtls_share"] == 1.0 and rows[0]
    row = wait_for(counted, "web in weft stat", 20)
    assert row["p50_ms"] is not None and row["namespace"] == "default"

    def edge():
        return [e for e in town.json("edges") if (e["source"], e["service"]) == ("me", "web")]
    assert wait_for(edge, "the edge me -> web", 20)[0]["mtls_share"] == 1.0


def test_the_wire_is_not_readable(town):
    """A listener on the bridge sees the pods talk and not what they say."""
    import socket
    sniff = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    sniff.bind((town.bridge, 0))
    sniff.settimeout(0.3)
    # The bridge's own interface sees what is for it; the pods' ends see everything.
    port = [m for m in re.findall(r"^\d+: (%sp\w+)" % town.bridge,
                                  subprocess.run(["ip", "-o", "link"], stdout=subprocess.PIPE,
                                                 text=True).stdout, re.M)][0]
    sniff.bind((port, 0))
    assert town.me.http("http://web:8080/SECRETPATH").status == 200
    seen = b""
    try:
        while len(seen) < 1 << 20:
            seen += sniff.recv(65536)
    except socket.timeout:
        pass
    sniff.close()
    assert len(seen) > 500 and b"SECRETPATH" not in seen and b"BaseHTTP" not in seen


@pytest.mark.asan
def test_a_server_that_speaks_first(town):
    done = town.me.exec("/usr/bin/python3", "-c", TALK)
    assert done.stdout.split("\n")[:2] == ["220 ready", "echo hello"], done.stderr


def test_ipv6_too(town):
    assert town.me.http("http://web:8080/", "-6").status == 200


def test_the_views_with_sqlite3_while_all_runs(town):
    db = sqlite3.connect("file:%s/broker/mesh.db?mode=ro" % town.state_dir, uri=True)
    assert {"web", "bank"} <= {r[0] for r in db.execute("select name from mesh_services")}
    assert db.execute("select count(*) from mesh_sessions where serving").fetchone()[0] == 3
    certs = db.execute("select * from mesh_certificates")
    names = [c[0] for c in certs.description]
    assert not [n for n in names if "key" in n]
    assert len(certs.fetchall()) >= 3
    with pytest.raises(sqlite3.OperationalError):
        db.execute("create table x(y)")
    db.close()
    telemetry = sqlite3.connect("file:%s/collector/telemetry.db?mode=ro" % town.state_dir, uri=True)
    wait_for(lambda: telemetry.execute("select count(*) from mesh_golden").fetchone()[0] > 0, "rollups", 20)
    telemetry.close()


def test_sql_is_read_only_and_says_what_is_wrong(town):
    assert town.sql("select 1 as one") == [{"one": 1}]
    for bad in ("delete from objects", "select * from nowhere", "select 1; select 2", "", "attach 'x' as y",
                "pragma journal_mode=delete"):
        done = town.weft("sql", bad, check=False)
        assert done.returncode == 1 and done.stderr.startswith("weft: "), (bad, done)


def test_a_first_certificate_comes_without_a_complaint(town):
    """A pod that has only just begun has failed at nothing."""
    pods = sorted("default/" + a.pod for a in (town.web, town.bank, town.me))

    def told():
        return sorted(r["pod"] for r in town.sql(
            "select pod from mesh_pod_events where kind='CERTIFICATE_OBTAINED'") if r["pod"] in pods)
    wait_for(lambda: told() == pods, "one event per pod", 15)
    assert not town.sql("select * from mesh_pod_events where kind='CERTIFICATE_RENEWAL_FAILED'")
    assert not [a.pod for a in (town.web, town.bank, town.me) if "certificate not issued" in a.log()]


def test_check_is_well_and_weighs_the_pods(town):
    done = town.weft("check")
    assert done.stdout.rstrip().endswith("All is well.")
    got = town.json("check")
    assert got["ok"] is True
    assert {c["about"] for c in got["checks"] if c["check"] == "capture"} == {a.pod for a in town.apps
                                                                             if a.process.poll() is None}
    whole = [p for p in got["processes"] if p["process"] == "(all)" and p["pod"] == town.web.pod]
    assert 1000 < whole[0]["pss_kib"] < 200000
    first = [c["check"] for c in got["checks"]][0]
    assert first == "certificate"


def test_apply_get_delete(town):
    text = """
apiVersion: v1
kind: Service
metadata: {name: spare}
spec: {ports: [{port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: spare-route}
spec:
  parentRefs: [{name: web, kind: Service, group: core, port: 8080}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /nowhere}}]
    backendRefs: [{name: web, port: 8080}]
    timeouts: {request: 3s}
"""
    done = town.apply(text)
    assert "applied by all" in done.stdout
    assert town.apply(text, wait=False).stdout.count("unchanged") == 2
    assert [s["name"] for s in town.json("get", "services", "spare")] == ["spare"]
    yaml = town.weft("get", "httproute", "spare-route", "-o", "yaml").stdout
    assert town.apply(yaml, wait=False).stdout.count("unchanged") == 1, "what get prints can be applied"
    assert "would be changed" in town.weft("apply", "--dry-run", "-f", "-",
                                           stdin=text.replace("3s", "4s")).stdout
    assert town.weft("delete", "-f", "-", stdin=text).stdout.count("deleted") == 2
    assert town.weft("delete", "httproute", "spare-route", check=False).returncode == 1
    assert town.weft("get", "service", "spare", check=False).returncode == 1


@pytest.mark.parametrize("text,words", [
    ("apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec:\n  ports:\n  - port: 99999\n", ":6: "),
    ("apiVersion: v1\nkind: Service\nmetadata: {name: X_y}\nspec: {ports: [{port: 1}]}\n", "name"),
    ("apiVersion: v1\nkind: Sevrice\nmetadata: {name: x}\n", "kind"),
    ("a: [1\n", "standard input:"),
    ("", "no object"),
])
def test_a_bad_manifest_is_refused_with_its_place(town, text, words):
    done = town.weft("apply", "-f", "-", stdin=text, check=False)
    assert done.returncode == 1 and words in done.stderr, done.stderr


def test_a_bad_object_keeps_no_other_back(town):
    good = "apiVersion: v1\nkind: Service\nmetadata: {name: fine%d}\nspec: {ports: [{port: 80}]}\n"
    bad = "apiVersion: v1\nkind: Service\nmetadata: {name: wrong}\nspec: {ports: [{port: 99999}]}\n"
    text = "---\n".join([good % 1, bad, good % 2])
    done = town.weft("apply", "--wait", "-f", "-", stdin=text, check=False)
    assert done.returncode == 1
    assert "standard input:9: spec.ports[0].port" in done.stderr, done.stderr
    assert "1 of 3 objects were not taken" in done.stderr
    assert done.stdout.count("created") == 2 and "applied by all" in done.stdout, done.stdout
    assert sorted(s["name"] for s in town.json("get", "services") if s["name"] in ("fine1", "fine2", "wrong")) \
        == ["fine1", "fine2"]
    text = "---\n".join([good % 1, "kind: Service\n", good % 2])
    done = town.weft("delete", "-f", "-", stdin=text, check=False)
    assert done.returncode == 1 and done.stdout.count("deleted") == 2, done.stderr
    done = town.weft("apply", "-f", "-", stdin=bad, check=False)
    assert done.returncode == 1 and "1 of 1 objects were not taken" in done.stderr


def test_every_query_of_the_page_is_answered(town):
    """docs/sql.md as printed, each as one argument: comments in front and several lines included."""
    with open(os.path.join(ROOT, "docs", "sql.md")) as f:
        blocks = re.findall(r"(?m)(?:^    .*\n)+", f.read())
    queries = ["\n".join(line[4:] for line in b.splitlines()) for b in blocks]
    queries = [q for q in queries if re.match(r"--|SELECT", q)]
    assert len(queries) >= 10
    for query in queries:
        done = town.weft("sql", query.replace(":t", "strftime('%s','now') * 1000"), check=False)
        assert done.returncode == 0, query + "\n" + done.stderr


def test_wait_names_the_laggard(town):
    route = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: late}
spec:
  parentRefs: [{name: web, kind: Service, group: core, port: 8080}]
  rules: [{backendRefs: [{name: web, port: 8080}], timeouts: {request: %ds}}]
"""
    assert town.me.http("http://web:8080/").status == 200  # me watches web
    pid = town.me.status()["weft-link"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        done = town.weft("apply", "--wait", "--timeout", "1500ms", "-f", "-", stdin=route % 5, check=False)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert done.returncode == 3 and "default/" + town.me.pod in done.stderr, done
    assert "applied by all" in town.apply(route % 6).stdout
    town.weft("delete", "httproute", "late")


def test_a_pod_without_a_session_is_found(town):
    link = town.me.status()["weft-link"]["pid"]
    os.kill(link, signal.SIGSTOP)
    try:
        done = wait_for(lambda: (lambda d: d if d.returncode == 1 else None)(town.weft("check", check=False)),
                        "check notices", 9)
        assert re.search(r"^no +session +default/%s +it runs here" % town.me.pod, done.stdout, re.M), done.stdout
    finally:
        os.kill(link, signal.SIGCONT)
    wait_for(lambda: town.weft("check", check=False).returncode == 0, "all is well again", 15)


FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"


@pytest.mark.skipif(not os.path.exists(FAKETIME), reason="faketime is not installed")
def test_a_pod_with_another_clock_is_found(town):
    late = serve(town, "late", env={"WEFT_TEST_PRELOAD": "true", "LD_PRELOAD": FAKETIME, "FAKETIME": "+2h",
                                    "FAKETIME_DONT_FAKE_MONOTONIC": "1"})
    try:
        row = r"(?m)^no +clock +default/%s +7[12]\d{5} ms off" % late.pod
        wait_for(lambda: re.search(row, town.weft("check", check=False).stdout), "check notices", 10)
        wait_for(lambda: [e for e in town.json("events", "--kind", "CLOCK_SKEW")
                          if e["object"] == "default/" + late.pod], "the event", 10)
        assert town.me.http("http://late:8080/").status == 200, "two hours are within every certificate's life"
    finally:
        late.stop()
    wait_for(lambda: town.weft("check", check=False).returncode == 0, "all is well again", 15)


def test_lost_capture_is_found_and_told(town):
    me = town.me
    subprocess.run(["ip", "netns", "exec", me.netns, "nft", "flush", "table", "inet", "weft"], check=True)
    check = ["redirect", "check", "--netns", me.netns, "--report", me.run_dir, "--pod", "default/" + me.pod,
             "--timeout", "500ms"]
    done = town.weft(*check, check=False)
    assert done.returncode == 1 and "not protected" in done.stderr
    assert "not-protected" in town.weft("check", check=False).stdout
    wait_for(lambda: [e for e in town.json("events", "--kind", "NOT_PROTECTED")
                      if e["object"] == "default/" + me.pod], "the event", 20)
    town.weft("redirect", "apply", "--netns", me.netns)
    town.weft(*check)
    assert town.weft("check").returncode == 0
    assert me.http("http://web:8080/").status == 200


def test_keys_and_tokens(town):
    token = town.weft("token", "--as", "default/other").stdout.strip()
    assert re.fullmatch(r"weft1\.[0-9a-f]{16}\.[0-9a-f]{64}", token)
    for bad in ("a/b/c", "Default/x", "", "default/", "x" * 300):
        assert town.weft("token", "--as", bad, check=False).returncode in (1, 2), bad
    key = town.json("feed-key", "observer")
    assert len(key["secret_key"]) == 40 and key["endpoint"].endswith(":8088")
    town.weft("feed-key", "observer", "--revoke")
    assert town.weft("feed-key", "observer", "--revoke", check=False).returncode == 1


def test_events_certs_and_the_rest_print(town):
    for argv in (["events"], ["certs"], ["certs", "--all"], ["get", "endpoints"], ["get", "sessions"],
                 ["sql", "--views"], ["stat", "--window", "10s"], ["stat", "-n", "default"], ["edges"],
                 ["explain"], ["settings"], ["version"]):
        assert town.weft(*argv).stdout.strip(), argv
    certs = town.json("certs")
    assert all(0 < c["left_s"] <= 24 * 3600 for c in certs)


LATE = r"""
import http.server, sys, time
time.sleep(float(sys.argv[1]))
http.server.HTTPServer(("", 8080), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def test_a_slow_starter_is_waited_for(mesh):
    """Its program listens after two seconds: no request meets a refused connection (W2003)."""
    client = mesh.client()
    mesh.run("late", ["/usr/bin/python3", mesh.python(LATE), "2"], ports=["8080"])
    began, answers = time.monotonic(), []
    while time.monotonic() - began < 6 and (not answers or answers[-1].status != 200):
        answers.append(client.http("http://late:8080/", timeout=10))
        time.sleep(0.05)
    assert answers[-1].status == 200, answers[-1]
    assert not [a for a in answers if "W2003" in a.headers.get("proxy-status", "")], answers


def test_check_names_the_port_nobody_listens_on(mesh):
    mesh.run("never", ["sleep", "1000"], ports=["8080"])
    wait_for(lambda: any(c["check"] == "application" and "port 8080" in c["text"]
                         for c in json.loads(mesh.weft("check", "-o", "json", check=False).stdout)["checks"]),
             "it is said after 10 s", 20)
    assert not mesh.sql("select * from mesh_endpoints where service='never' and ready")


def test_a_pod_that_ends_leaves_the_service_first(mesh):
    """Two pods behind one name; one ends in the middle of traffic and nobody notices."""
    serve(mesh)
    second = serve(mesh)
    me = mesh.client()
    wait_for(lambda: len([e for e in mesh.json("get", "endpoints", "web")
                          if e["ready"] and ":" not in e["ip"]]) == 2, "two endpoints")
    out = open(os.path.join(mesh.dir, "codes"), "w+")
    load = me.popen("sh", "-c", "i=0; while [ $i -lt 150 ]; do "
                    "curl -s -o /dev/null -m 5 -w '%{http_code}\\n' http://web:8080/; "
                    "i=$((i+1)); done", stdout=out)
    wait_for(lambda: os.fstat(out.fileno()).st_size > 4 * 30, "traffic")
    second.stop()
    load.wait(60)
    out.seek(0)
    codes = out.read().split()
    out.close()
    # The program itself ends at once (SIGTERM), so what it had in hand may fail, not what comes later.
    assert codes.count("200") >= 149, codes
    assert codes[-50:] == ["200"] * 50


def test_killed_weft_run_with_real_processes(mesh):
    web = serve(mesh)
    pids = [p["pid"] for p in web.status().values()]
    web.process.kill()
    web.process.wait()
    wait_for(lambda: not [p for p in pids if os.path.exists("/proc/%d" % p) and
                          open("/proc/%d/stat" % p).read().rsplit(")", 1)[1].split()[0] not in "ZX"],
             "the pod's processes end with weft run")
    serve(mesh)
    wait_for(lambda: [s["pod"] for s in mesh.json("get", "sessions")] == ["web-2"], "the dead session goes", 20)


def test_state_is_kept_over_down_and_up(mesh):
    mesh.apply("apiVersion: v1\nkind: Service\nmetadata: {name: keeper}\nspec: {ports: [{port: 80}]}\n")
    address = mesh.json("get", "services", "keeper")[0]["address"]
    mesh.weft("down")
    mesh.up()
    assert mesh.json("get", "services", "keeper")[0]["address"] == address
    assert serve(mesh).process.poll() is None


def test_an_interactive_shell(mesh):
    """Without a command: a shell on the caller's terminal, with working job control."""
    import pty
    pid, fd = pty.fork()
    if pid == 0:
        os.environ.update(mesh.env, SHELL="/bin/bash", PS1="$ ")
        os.execv(os.path.join(os.environ.get("WEFT_BUILD", ""), "bin", "weft"), ["weft", "run", "--as", "me"])
    got = b""

    def until(words, seconds=30):
        nonlocal got
        import select
        end = time.monotonic() + seconds
        while words not in got and time.monotonic() < end:
            if select.select([fd], [], [], 0.2)[0]:
                try:
                    got += os.read(fd, 4096)
                except OSError:
                    break
        assert words in got, got
    os.write(fd, b"echo a''live; sleep 1000\n")
    until(b"alive")
    time.sleep(0.3)
    os.write(fd, b"\x03")  # Ctrl-C ends the sleep, not weft run, not the shell
    os.write(fd, b"echo still''here; exit 5\n")
    until(b"stillhere")
    end = time.monotonic() + 20
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        time.sleep(0.05)
    os.close(fd)
    assert done and os.WEXITSTATUS(status) == 5
    assert json.dumps(mesh.json("check")["ok"]) == "true"
