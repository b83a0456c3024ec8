"""Limits, rates and faults from manifest to answer, in one mesh."""
import pytest

from meshes import wait_for
from traffic import metrics, total

WEB = r'''
import http.server, time
class Web(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *a): pass
    def do_GET(self):
        if self.path == "/slow":
            time.sleep(20)
        body = repr(sorted(k.lower() for k in self.headers)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("", 8080), Web).serve_forever()
'''

ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web-route%s}
spec:
  parentRefs: [{kind: Service, group: core, name: web, port: 8080}]
  rules:
  - %s
    backendRefs: [{kind: Service, name: web, port: 8080}]
"""

FAULT = """
apiVersion: weft.io/v1
kind: HTTPFaultInjection
metadata: {name: broken}
spec: {%s}
---
""" + ROUTE % ("", "filters: [{type: ExtensionRef, extensionRef: {group: weft.io, kind: HTTPFaultInjection, name: broken}}]")

RATE = """
apiVersion: policy.linkerd.io/v1alpha1
kind: HTTPLocalRateLimitPolicy
metadata: {name: web-rate}
spec:
  targetRef: {group: core, kind: Service, name: web}
  total: {requestsPerSecond: 1000}
  identity: {requestsPerSecond: 1}
  overrides: [{requestsPerSecond: 500, clientRefs: [{kind: ServiceAccount, namespace: default, name: favoured}]}]
"""


class Town:
    def __init__(self, mesh):
        self.mesh = mesh
        self.web = mesh.run("web", ["/usr/bin/python3", mesh.python(WEB)], ports=["8080"])
        self.client, self.favoured = mesh.client(), mesh.client("favoured")
        for c in (self.client, self.favoured):
            wait_for(lambda: c.http("http://web:8080/").status == 200, "it serves")

    def ask(self, path="/", client=None):
        return (client or self.client).http("http://web:8080" + path, timeout=60)


@pytest.fixture(scope="module")
def town(shared_mesh):
    return Town(shared_mesh)


def delete(town, text):
    town.mesh.weft("delete", "-f", "-", stdin=text)


def test_a_route_limits_its_requests(town):
    text = ROUTE % ("", "timeouts: {request: 300ms}")
    town.mesh.apply(text)
    try:
        a = town.ask("/slow")
        assert a.status == 504 and a.headers["weft-code"] == "W3002", a
        assert "HTTPRoute/default/web-route rule 0: timeouts.request 300ms" in a.headers["proxy-status"]
        a = town.ask()
        assert a.status == 200 and "weft-" not in a.body, a.body
    finally:
        delete(town, text)


def test_faults(town):
    town.mesh.apply(FAULT % "abort: {httpStatus: 418, percent: 100}")
    try:
        a = town.ask()
        assert a.status == 418 and a.headers["weft-code"] == "W1008", a
        assert "HTTPRoute/default/web-route rule 0" in a.headers["proxy-status"]
        town.mesh.apply(FAULT % "abort: {httpStatus: 418, percent: 0}")
        assert [town.ask().status for _ in range(5)] == [200] * 5
        wait_for(lambda: total(metrics(town.client), "weft_faults_total", fault="fail", route_name="web-route") == 1,
                 "it is counted")
        town.mesh.apply(FAULT % "delay: {duration: 1s, percent: 100}, abort: {httpStatus: 503, percent: 100}")
        assert town.ask().status == 503
    finally:
        delete(town, FAULT % "delay: {duration: 1s}")


def test_rates(town):
    town.mesh.apply(RATE)
    try:
        wait_for(lambda: town.ask().status == 429, "the limit is in force")
        a = wait_for(lambda: (lambda x: x if x.status == 429 else None)(town.ask()), "it holds")
        assert a.headers["weft-code"] == "W6002" and a.headers["retry-after"] == "1"
        assert "HTTPLocalRateLimitPolicy/default/web-rate: identity 1 per second for this client" in a.headers["proxy-status"]
        assert [town.ask(client=town.favoured).status for _ in range(10)] == [200] * 10
        wait_for(lambda: total(metrics(town.web), "inbound_http_local_ratelimit_total", ratelimit_name="web-rate",
                               ratelimit_kind="HTTPLocalRateLimitPolicy", ratelimit_namespace="default",
                               ratelimit_scope="identity", srv_port="8080") > 0, "it is counted")
        assert "W6002" in town.mesh.weft("explain", "W6002").stdout
    finally:
        delete(town, RATE)
    wait_for(lambda: [town.ask().status for _ in range(5)] == [200] * 5, "the limit is gone")
