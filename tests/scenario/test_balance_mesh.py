"""What a Service's annotations say reaches the proxies of real pods: breakers, hashing, zones, slow start."""
import collections
import json
import os

import pytest

from meshes import wait_for
from traffic import metrics, total

# Answers its name; with status 500 while the file of its second argument is there.
ECHO = """
import http.server, os, socketserver, sys
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = sys.argv[1].encode()
        self.send_response(500 if os.path.exists(sys.argv[2]) else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *a): pass
class S(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 64
S(("", 8080), H).serve_forever()
"""
SERVICE = """
apiVersion: v1
kind: Service
metadata:
  name: web
  annotations: {%s}
spec:
  ports: [{port: 8080}]
"""
BREAKER = ('balancer.linkerd.io/failure-accrual: consecutive, '
           'balancer.linkerd.io/failure-accrual-consecutive-max-failures: "3", '
           'balancer.linkerd.io/failure-accrual-consecutive-min-penalty: 2s, '
           'balancer.linkerd.io/failure-accrual-consecutive-max-penalty: 4s, '
           'balancer.linkerd.io/failure-accrual-consecutive-jitter-ratio: "0", '
           'balancer.weft.io/algorithm: round-robin')


class Town:
    """Three pods of web (p0 and p1 in zone a, p2 in zone b) and a client in zone a."""

    def __init__(self, mesh):
        self.mesh = mesh
        self.sick = mesh.dir + "/sick-%d"
        program = mesh.python(ECHO)
        for i, zone in enumerate("aab"):
            mesh.run("web", ["/usr/bin/python3", program, "p%d" % i, self.sick % i], ports=["8080"], replica="p%d" % i,
                     env={"WEFT_ZONE": zone})
        self.client = mesh.run("client", ["sleep", "100000"], env={"WEFT_ZONE": "a"})
        wait_for(lambda: len(mesh.sql("select distinct pod from mesh_endpoints where ready")) == 3, "three pods serve", 20)

    def ask(self, n=1, *curl):
        """{(pod, status): how often} of n requests."""
        done = self.client.exec("curl", "-sS", "-w", " %{http_code}\\n", *curl, "http://web:8080/?[1-%d]" % n, timeout=60)
        return collections.Counter(tuple(line.split()) for line in done.stdout.splitlines() if line.strip())

    def pods(self, n=1, *curl):
        return {pod for pod, _ in self.ask(n, *curl)}

    def explain(self, *argv):
        return json.loads(self.mesh.weft("route", "GET", "http://web:8080/", *argv, "--from", "client", "--json").stdout)

    def events(self, kind):
        return [r["message"] for r in self.mesh.sql("select message from mesh_pod_events where kind='%s'" % kind)]

    def endpoints(self, state):
        return total(metrics(self.client), "weft_backend_endpoints", backend="default/web:8080", state=state)


@pytest.fixture(scope="module")
def town(shared_mesh):
    return Town(shared_mesh)


def test_a_sick_pod_is_ejected_probed_and_returns(town):
    town.mesh.apply(SERVICE % BREAKER)
    wait_for(lambda: town.pods(6) == {"p0", "p1", "p2"}, "round robin", 20)
    sick = open(town.sick % 1, "w")
    sick.close()
    got = town.ask(60)
    assert got["p1", "500"] >= 3, got
    (first, *_) = wait_for(lambda: town.events("ENDPOINT_EJECTED"), "the event", 20)
    words = dict(w.split("=", 1) for w in first.split())
    assert words["reason"] == "CONSECUTIVE" and words["row"] == "3" and words["for_ms"] == "2000", first
    assert words["pod"] == "default/web-p1" and words["ready"] == "2" and words["of"] == "3", first
    assert "ENDPOINT_EJECTED" in town.mesh.weft("events").stdout
    # Its probes fail, and each makes it stay out for longer, up to the maximum.
    wait_for(lambda: town.ask(4) and any("reason=PROBE_FAILED" in m and "for_ms=4000" in m
                                         for m in town.events("ENDPOINT_EJECTED")), "a probe fails", 20)
    wait_for(lambda: town.endpoints("ejected") == 1 and town.endpoints("ready") == 2, "the gauge", 20)
    series = metrics(town.client)
    for reason in ("CONSECUTIVE", "PROBE_FAILED"):
        assert total(series, "weft_endpoint_ejections_total", backend="default/web:8080", reason=reason) >= 1, reason
    # It heals: the next probe brings it back.
    os.unlink(town.sick % 1)
    wait_for(lambda: ("p1", "200") in town.ask(6), "its return", 20)
    wait_for(lambda: any("pod=default/web-p1" in m for m in town.events("ENDPOINT_RETURNED")), "that event", 20)
    wait_for(lambda: town.endpoints("ejected") == 0 and town.endpoints("ready") == 3, "the gauge", 20)
    got = town.ask(30)
    assert {k: n for k, n in got.items() if k[1] != "200"} == {} and town.pods(9) == {"p0", "p1", "p2"}, got


def test_hash_by_header_is_what_route_says(town):
    town.mesh.apply(SERVICE % 'balancer.weft.io/algorithm: consistent-hash, balancer.weft.io/hash-on: "header:x-user"')
    wait_for(lambda: len(town.pods(12, "-H", "x-user: ann")) == 1, "the hash", 20)
    owners = {}
    for user in ("ann", "bob", "carol", "dave", "erin", "frank", "grace", "heidi"):
        (owners[user],) = town.pods(5, "-H", "x-user: " + user)
        got = town.explain("-H", "x-user: " + user)
        chosen = [e for e in got["endpoints"] if e.get("chosen")]
        assert len(chosen) == 1 and chosen[0]["pod"] == "default/web-" + owners[user], (user, owners, got["endpoints"])
    assert len(set(owners.values())) > 1, owners
    assert len(town.pods(40)) > 1  # without a key: as without a hash


def test_the_own_zone_is_preferred(town):
    town.mesh.apply(SERVICE % 'balancer.weft.io/zone: prefer, balancer.weft.io/zone-spill: "100"')
    wait_for(lambda: town.pods(20) == {"p0", "p1"}, "the zone", 20)
    town.mesh.apply(SERVICE % 'balancer.weft.io/zone: ignore, balancer.weft.io/algorithm: round-robin')
    wait_for(lambda: town.pods(6) == {"p0", "p1", "p2"}, "no zone", 20)


def test_slow_start_of_a_new_pod(town):
    town.mesh.apply(SERVICE % 'balancer.weft.io/algorithm: round-robin, balancer.weft.io/slow-start: 10m')
    program = town.mesh.python(ECHO)
    late = town.mesh.run("web", ["/usr/bin/python3", program, "p3", town.sick % 3], ports=["8080"], replica="p3")
    wait_for(lambda: len(town.mesh.sql("select distinct pod from mesh_endpoints where ready")) == 4, "the new pod", 20)
    wait_for(lambda: "p3" in town.pods(60), "a little for the new one", 20)
    got = town.ask(240)
    hits = {pod: got[pod, "200"] for pod in ("p0", "p1", "p2", "p3")}
    # An even share is 60 now and then a tenth of that; the three others were there before.
    assert 0 < hits["p3"] < 40 < min(hits[p] for p in ("p0", "p1", "p2")), hits
    late.stop()
