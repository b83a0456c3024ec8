"""Hedges of manifests through the mesh: a further attempt beside one that is late. One of two pods never answers."""
import json
import textwrap

import pytest

from meshes import wait_for
from traffic import PATIENT, metrics, settled, total

pytestmark = pytest.mark.asan

# Writes down what it gets: [path, method, content, fields of the mesh]. "late" answers nothing but below /quick, nobody
# answers below /poor.
APP = textwrap.dedent(r'''
    import json, socket, sys, threading, time

    def serve(s):
        f = s.makefile("rb")
        while True:
            line = f.readline()
            if not line:
                return
            method, path, _ = line.decode().split()
            head = {}
            while True:
                h = f.readline().decode().strip()
                if not h:
                    break
                k, v = h.split(":", 1)
                head[k.lower()] = v.strip()
            body = f.read(int(head.get("content-length", 0)))
            print(json.dumps([path, method, body.decode(), sorted(h for h in head if h.startswith("weft-"))]), flush=True)
            if path.startswith("/poor") or (sys.argv[1] == "late" and not path.startswith("/quick")):
                if f.read(1) == b"":
                    print(json.dumps("gone"), flush=True)
                return
            s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n")

    l = socket.create_server(("", 8080), backlog=64)
    print(json.dumps("ready"), flush=True)
    while True:
        threading.Thread(target=serve, args=(l.accept()[0],), daemon=True).start()
''')


def route(name, annotations="", match=""):
    return """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: %s, annotations: {%s}}
spec:
  parentRefs: [{kind: Service, group: core, name: web, port: 8080}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /%s}%s}]
    backendRefs: [{name: web, port: 8080}]
---""" % (name, annotations, name, match)


HEDGE = 'retry.weft.io/hedge-after: 100ms, retry.weft.io/budget-min-per-second: "1000"'
ROUTES = "".join([route("late", HEDGE), route("post", HEDGE, ", method: POST"), route("quick", HEDGE),
                  route("poor", 'retry.weft.io/hedge-after: 100ms, retry.weft.io/budget-min-per-second: "1", '
                        'retry.weft.io/budget-ratio: "0.001", retry.weft.io/budget-ttl: 60s'),
                  route("plain")])


class Setup:
    def __init__(self, mesh):
        self.mesh = mesh
        mesh.env.update(PATIENT)
        program = mesh.python(APP)
        self.late, self.good = [mesh.run("web", ["/usr/bin/python3", program, kind], ["8080/http1"]) for kind in ("late", "good")]
        for pod in (self.late, self.good):
            wait_for(lambda: '"ready"' in pod.output(), "it runs")
        self.client = mesh.client()
        mesh.apply(ROUTES)
        wait_for(lambda: mesh.sql("select count(distinct pod) as n from mesh_endpoints where service='web' and ready")[0]["n"] == 2,
                 "both endpoints")
        wait_for(lambda: self.client.http("http://web:8080/quick/warm").status == 200 and
                 self.got(self.late, "/quick/warm") and self.got(self.good, "/quick/warm"), "both get some")

    def got(self, pod, path):
        return [x for x in map(json.loads, pod.output().split("\n")[:-1]) if x[0] == path]

    def hedges(self, route):
        series = metrics(self.client)
        return {r: total(series, "weft_hedge_total", route_name=route, result=r)
                for r in ("sent", "won", "lost", "failed", "took_over")}

    def refused(self, route):
        return {l["reason"]: int(v) for n, l, v in metrics(self.client)
                if n == "weft_retry_refused_total" and l.get("route_name") == route}


@pytest.fixture(scope="module")
def setup(shared_mesh):
    return Setup(shared_mesh)


def test_nobody_waits_for_the_late_one(setup):
    n = late = 0
    while n < 10 or (late == 0 and n < 200):  # the balancer may like the good one better
        path = "/late/%d" % n
        n += 1
        a = setup.client.http("http://web:8080" + path, "-X", "PUT", "-d", "content %d" % n)
        assert a.status == 200, a
        assert [g[1:] for g in setup.got(setup.good, path)] == [["PUT", "content %d" % n, []]]
        late += len(setup.got(setup.late, path))
    assert late >= 1
    counts = settled(lambda: setup.hedges("late"))
    assert counts == {"sent": late, "won": late, "lost": 0, "failed": 0, "took_over": 0}
    assert setup.refused("late") == {}
    series = metrics(setup.client)
    responses = [(l.get("classification"), v) for n, l, v in series
                 if n == "response_total" and l.get("direction") == "outbound" and
                 l.get("route_name", "").endswith("late")]
    assert sum(v for c, v in responses if c == "success") == n
    assert sum(v for c, v in responses if c is None) == late, "what we gave up ourselves is neither success nor failure"
    assert sum(v for c, v in responses if c == "failure") == 0
    wait_for(lambda: setup.late.output().count('"gone"') >= late, "the late one's requests were cancelled")


def test_who_is_quick_is_not_hedged(setup):
    for n in range(20):
        assert setup.client.http("http://web:8080/quick/%d" % n).status == 200
    assert settled(lambda: setup.hedges("quick"))["sent"] == 0
    assert sum(len(setup.got(p, "/quick/%d" % n)) for p in (setup.late, setup.good) for n in range(20)) == 20


def test_a_post_is_hedged_only_where_the_rule_names_it(setup):
    for n in range(10):
        path = "/post/%d" % n
        a = setup.client.http("http://web:8080" + path, "-d", "x")
        assert a.status == 200, a
    assert settled(lambda: setup.hedges("post"))["won"] == sum(len(setup.got(setup.late, "/post/%d" % n)) for n in range(10))
    for n in range(12):
        path = "/late/post%d" % n
        # The late one never answers, and nobody hedges this for us.
        setup.client.exec("curl", "-s", "-o", "/dev/null", "--max-time", "1", "-d", "x", "http://web:8080" + path)
        assert len(setup.got(setup.late, path) + setup.got(setup.good, path)) == 1, "a POST without permission runs once"


def test_the_budget_bounds_hedges(setup):
    """60 hedges a minute and no more, whatever is late."""
    asking = [setup.client.popen("sh", "-c", "for i in $(seq 40); do curl -s -o /dev/null --max-time 1 "
                                 "http://web:8080/poor/%d-$i & done; wait" % k) for k in range(4)]
    for p in asking:
        p.wait(60)
    counts = settled(lambda: setup.hedges("poor"))
    assert 1 <= counts["sent"] <= 61, counts
    assert setup.refused("poor").get("BUDGET", 0) >= 1


def test_nothing_bad_in_the_logs(setup):
    for app in (setup.client, setup.late, setup.good):
        log = app.log()
        assert "runtime error" not in log and "Sanitizer" not in log and "missed an edge" not in log, log[-3000:]
