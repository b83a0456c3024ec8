"""Every kind of resource: what `weft route` says of a request, and where the request then goes."""
import json

import pytest

from meshes import wait_for

ECHO = """
import http.server, json, socketserver, sys
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = json.dumps({"who": sys.argv[1], "path": self.path, "method": self.command,
                           "headers": {k.lower(): v for k, v in self.headers.items()}}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.send_header("x-from", sys.argv[1])
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
    do_POST = do_PUT = do_HEAD = do_GET
    def log_message(self, *a): pass
class S(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 64
S(("", 8080), H).serve_forever()
"""


@pytest.fixture(scope="module")
def traffic(shared_mesh):
    mesh = shared_mesh
    program = mesh.python(ECHO)
    for name in ("web", "v1", "v2"):
        mesh.run(name, ["/usr/bin/python3", program, name], ports=["8080"])
    client = mesh.client()
    wait_for(lambda: len(mesh.sql("select distinct pod from mesh_endpoints where ready")) == 3, "three services serve", 20)
    return mesh, client


@pytest.fixture
def routes(traffic):
    """Applies resources and takes them away again."""
    mesh, client = traffic
    applied = []

    def apply(text):
        applied.append(text)
        return mesh.apply(text)
    yield mesh, client, apply
    for text in applied:
        mesh.weft("delete", "-f", "-", stdin=text, check=False)


def explain(mesh, *argv):
    return json.loads(mesh.weft("route", *argv, "--from", "client", "--json").stdout)


def chosen(got):
    return [r["rule"] for r in got["rules"] if r["chosen"]]


def why(got, rule):
    return [r["why"] for r in got["rules"] if r["rule"] == rule][0]


def ask(client, path="/", *curl):
    got = client.http("http://web:8080" + path, *curl)
    return got, (json.loads(got.body) if got.status == 200 and got.body else None)


HEAD = """
apiVersion: gateway.networking.k8s.io/v1
kind: %s
metadata: {name: %s}
spec:
  parentRefs: [{kind: Service, group: core, name: web, port: 8080}]
"""
V1, V2 = "{name: v1, port: 8080}", "{name: v2, port: 8080}"


def test_without_routes(traffic):
    mesh, client = traffic
    got = explain(mesh, "GET", "http://web:8080/x")
    assert got["destination"]["service"] == "default/web:8080"
    assert chosen(got) == ["(default)"]
    assert [b["service"] for b in got["backends"]] == ["default/web:8080"]
    assert got["endpoints"][0]["why"] == "the only one" and got["endpoints"][0]["tls"]
    assert got["timeouts"]["request"] == {"ms": 0, "from": "default"}
    assert ask(client)[1]["who"] == "web"
    assert "-> (default)" in mesh.weft("route", "GET", "http://web:8080/x", "--from", "client").stdout


def test_precedence_is_explained_and_followed(routes):
    mesh, client, apply = routes
    apply(HEAD % ("HTTPRoute", "r") + """
  rules:
  - backendRefs: [%s]
  - matches: [{path: {type: Exact, value: /exact}, headers: [{name: X-A, value: "1"}]}]
    backendRefs: [%s]
  - matches: [{path: {value: /exact}, method: POST}, {path: {type: RegularExpression, value: "/r[0-9]+"}}]
    backendRefs: [%s]
""" % ("{name: web, port: 8080}", V1, V2))
    rule = "HTTPRoute/default/r rule %d"
    cases = [("GET", "/exact", ("-H", "x-a: 1"), 1, "v1"), ("GET", "/exact", (), 0, "web"),
             ("POST", "/exact", ("-H", "x-a: 1"), 1, "v1"), ("POST", "/exact/deep", (), 2, "v2"),
             ("GET", "/r77", (), 2, "v2"), ("GET", "/r77x", (), 0, "web")]
    for method, path, headers, want, who in cases:
        got = explain(mesh, method, "http://web:8080" + path, *headers)
        assert chosen(got) == [rule % want], (method, path, got["rules"])
        assert ask(client, path, "-X", method, *headers)[1]["who"] == who, (method, path)
    got = explain(mesh, "GET", "http://web:8080/exact", "-H", "x-a: 2")
    assert why(got, rule % 1) == "header x-a: wanted 1, the request has 2"
    assert why(got, rule % 2) == "path: /exact does not fit ~/r[0-9]+"
    got = explain(mesh, "POST", "http://web:8080/exact", "-H", "x-a: 1")
    assert why(got, rule % 0) == why(got, rule % 2) == "fits, but its path is less exact"


def test_no_rule_fits(routes):
    mesh, client, apply = routes
    apply(HEAD % ("HTTPRoute", "r") + "  hostnames: [other.example, '*.wild.example']\n  rules: [{}]\n")
    got = explain(mesh, "GET", "http://web:8080/")
    assert chosen(got) == [] and got["answer"].startswith("W1002")
    assert "host: web" in got["rules"][0]["why"]
    assert ask(client)[0].status == 404
    for host in ("other.example", "a.wild.example"):
        assert chosen(explain(mesh, "GET", "http://web:8080/", "-H", "Host: " + host)) != []
        assert ask(client, "/", "-H", "Host: " + host)[1]["who"] == "web"


def test_filters(routes):
    mesh, client, apply = routes
    apply(HEAD % ("HTTPRoute", "r") + """
  rules:
  - matches: [{path: {value: /go}}]
    filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /gone}, statusCode: 307}}]
  - matches: [{path: {value: /old}}]
    filters:
    - {type: URLRewrite, urlRewrite: {hostname: new.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}
    - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Set, value: rule}], remove: [x-gone]}}
    - {type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: X-Added, value: "yes"}]}}
    backendRefs:
    - {name: v1, port: 8080, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {add: [{name: x-backend, value: b}]}}]}
""")
    got = explain(mesh, "GET", "http://web:8080/go/x")
    assert got["answer"] == "307 redirect" and got["filters"] == ["redirect 307: prefix /gone"]
    answer, _ = ask(client, "/go/x?y")
    assert answer.status == 307 and answer.headers["location"] == "http://web:8080/gone/x?y"
    got = explain(mesh, "GET", "http://web:8080/old/x")
    assert got["filters"] == ["rewrite: host new.example prefix /new", "request headers: set x-set: rule, remove x-gone",
                              "response headers: add x-added: yes"]
    assert got["backends"][0]["filters"] == ["request headers: add x-backend: b"]
    answer, seen = ask(client, "/old/x", "-H", "X-Gone: 1")
    assert answer.headers["x-added"] == "yes"
    assert seen["who"] == "v1" and seen["path"] == "/new/x"
    h = seen["headers"]
    assert h["host"] == "new.example" and h["x-set"] == "rule" and h["x-backend"] == "b" and "x-gone" not in h


def test_weights_and_missing_backends(routes):
    mesh, client, apply = routes
    apply(HEAD % ("HTTPRoute", "r") + """
  rules:
  - matches: [{path: {value: /gone}}]
    backendRefs: [{name: nowhere, port: 1}]
  - backendRefs: [{name: v1, port: 8080, weight: 3}, {name: v2, port: 8080, weight: 1}, {name: web, port: 8080, weight: 0}]
""")
    got = explain(mesh, "GET", "http://web:8080/")
    assert [(b["service"], b["share"]) for b in got["backends"]] == [
        ("default/v1:8080", 0.75), ("default/v2:8080", 0.25), ("default/web:8080", 0.0)]
    assert got["backends"][2]["why"] == "weight 0: never chosen"
    assert "W1003" in explain(mesh, "GET", "http://web:8080/gone")["backends"][0]["why"]
    assert ask(client, "/gone")[0].status == 500
    seen = [json.loads(line)["who"] for line in client.exec(
        "curl", "-sS", "-w", "\\n", *["http://web:8080/%d" % i for i in range(200)], check=True).stdout.splitlines()]
    assert set(seen) == {"v1", "v2"} and 110 <= seen.count("v1") <= 185  # 150 expected; six sigma either way


def test_where_limits_come_from(routes):
    mesh, client, apply = routes
    apply("""
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: r
  annotations: {timeout.linkerd.io/idle: 40s, timeout.weft.io/response-headers: 3s, retry.linkerd.io/http: "5xx,429", retry.linkerd.io/limit: "3"}
spec:
  parentRefs: [{kind: Service, name: web}]
  rules:
  - timeouts: {request: 10s, backendRequest: 2s}
  - matches: [{path: {value: /own}}]
    retry: {codes: [503], attempts: 2}
""")
    got = explain(mesh, "GET", "http://web:8080/")
    assert got["timeouts"] == {"request": {"ms": 10000, "from": "rule"}, "attempt": {"ms": 2000, "from": "rule"},
                               "idle": {"ms": 40000, "from": "route annotation"},
                               "response_headers": {"ms": 3000, "from": "route annotation"}}
    assert got["retries"] == {"policy": "3 more on 500-599,429", "from": "route annotation"}
    assert explain(mesh, "GET", "http://web:8080/own")["retries"] == {"policy": "2 more on 503", "from": "rule"}


def test_grpc_routes_go_by_method(routes):
    mesh, client, apply = routes
    apply(HEAD % ("GRPCRoute", "g") + """
  rules:
  - matches: [{method: {service: shop.Cart, method: Add}}]
    backendRefs: [%s]
  - matches: [{method: {method: Watch}}, {method: {type: RegularExpression, service: "shop\\\\..*", method: "Get.*"}}]
    backendRefs: [%s]
""" % (V1, V2))
    cases = [("/shop.Cart/Add", 0, "v1"), ("/any.Thing/Watch", 1, "v2"), ("/shop.Cart/GetAll", 1, "v2")]
    for path, want, who in cases:
        assert chosen(explain(mesh, "POST", "http://web:8080" + path)) == ["GRPCRoute/default/g rule %d" % want]
        assert ask(client, path, "-X", "POST")[1]["who"] == who
    assert chosen(explain(mesh, "POST", "http://web:8080/shop.Cart/Remove")) == []
    refused = mesh.weft("apply", "-f", "-", stdin=HEAD % ("HTTPRoute", "r") + "  rules: [{}]\n", check=False)
    assert refused.returncode == 1 and "GRPCRoute/default/g is attached to this port already" in refused.stderr


PROFILE = """
apiVersion: linkerd.io/v1alpha2
kind: ServiceProfile
metadata: {name: web.default.svc.cluster.local}
spec:
  routes:
  - name: books
    condition: {all: [{pathRegex: /books/\\d+}, {not: {method: DELETE}}]}
    timeout: 5s
    isRetryable: true
    responseClasses: [{condition: {status: {min: 404, max: 404}}, isFailure: true}]
  dstOverrides:
  - {authority: "v1.default.svc.cluster.local:8080", weight: 500m}
  - {authority: v2.default.svc.cluster.local, weight: 0}
"""


def test_service_profiles(routes):
    mesh, client, apply = routes
    apply(PROFILE)
    rule = "ServiceProfile/default/web.default.svc.cluster.local rule 0"
    got = explain(mesh, "GET", "http://web:8080/books/7")
    assert got["destination"]["profile"] and chosen(got) == [rule]
    assert got["timeouts"]["request"] == {"ms": 5000, "from": "rule"}
    assert got["retries"]["policy"] == "every failure, as long as the budget allows"
    assert [(b["service"], b["share"]) for b in got["backends"]] == [("default/v1:8080", 1.0), ("default/v2:8080", 0.0)]
    got = explain(mesh, "DELETE", "http://web:8080/books/7")
    assert chosen(got) == ["(default)"] and why(got, rule) == "condition: not method DELETE"
    assert {ask(client, "/books/%d" % i)[1]["who"] for i in range(5)} == {"v1"}
    note = apply(HEAD % ("HTTPRoute", "r") + "  rules: [{}]\n")
    assert "not followed while ServiceProfile/default/web.default.svc.cluster.local" in note.stdout + note.stderr


def test_routes_of_connections(routes):
    mesh, client, apply = routes
    apply("""
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: t}
spec:
  parentRefs: [{kind: Service, name: web}]
  hostnames: ["*.example.org"]
  rules: [{backendRefs: [%s]}]
---
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TCPRoute
metadata: {name: c}
spec:
  parentRefs: [{kind: Service, name: web}]
  rules: [{backendRefs: [%s]}]
""" % (V1, V2))
    assert explain(mesh, "tcp", "web:8080")["backends"][0]["service"] == "default/v2:8080"
    got = explain(mesh, "tls", "web:8080")
    assert got["answer"].startswith("W1002")  # the server name is "web"
    got = explain(mesh, "tls", "web:8080", "-H", "Host: a.example.org")
    assert got["backends"][0]["service"] == "default/v1:8080"


def test_faults_mirrors_and_rate_limits_are_shown(routes):
    mesh, client, apply = routes
    apply("""
apiVersion: weft.io/v1
kind: HTTPFaultInjection
metadata: {name: slow}
spec: {delay: {duration: 100ms, jitter: 20ms}, abort: {httpStatus: 503, percent: 2.5}}
---
apiVersion: policy.linkerd.io/v1alpha1
kind: HTTPLocalRateLimitPolicy
metadata: {name: limit}
spec:
  targetRef: {kind: Service, name: web}
  total: {requestsPerSecond: 1000}
  identity: {requestsPerSecond: 100}
---
""" + HEAD % ("HTTPRoute", "r") + """
  rules:
  - filters:
    - {type: ExtensionRef, extensionRef: {group: weft.io, kind: HTTPFaultInjection, name: slow}}
    - {type: RequestMirror, requestMirror: {backendRef: {name: v2, port: 8080}, fraction: {numerator: 1, denominator: 8}}}
""")
    got = explain(mesh, "GET", "http://web:8080/")
    assert got["filters"] == ["fault: delay 100ms + up to 20ms (every request)", "fault: answer 503 (2.5% of the requests)",
                              "mirror to default/v2:8080 (12.5% of the requests)"]
    assert got["rate_limit"] == {"policy": "HTTPLocalRateLimitPolicy/default/limit", "total_per_s": 1000, "identity_per_s": 100}


def test_consistent_hash_names_the_endpoint(routes):
    mesh, client, apply = routes
    slices = "".join("- {addresses: [10.99.0.%d]}\n" % i for i in range(1, 6))
    apply("""
apiVersion: v1
kind: Service
metadata: {name: hashed, annotations: {balancer.weft.io/algorithm: consistent-hash, balancer.weft.io/hash-on: "header:X-User"}}
spec: {ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: hashed-1, labels: {kubernetes.io/service-name: hashed}}
addressType: IPv4
ports: [{port: 80}]
endpoints:
""" + slices)
    def pick(user):
        got = explain(mesh, "GET", "http://hashed/", "-H", "x-user: " + user)
        return [e["address"] for e in got["endpoints"] if e["chosen"]]
    first = {user: pick(user) for user in "abcdefgh"}
    assert all(len(v) == 1 for v in first.values()) and len({v[0] for v in first.values()}) > 1
    assert first == {user: pick(user) for user in first}
    got = explain(mesh, "GET", "http://hashed/")
    assert {e["why"] for e in got["endpoints"]} == {"one of 5 ready, chosen at random: the request has nothing to hash"}


def test_wrong_questions(traffic):
    mesh, _ = traffic
    for argv, code, text in [(("GET", "https://web/"), 2, "weft route tls"), (("GE T", "http://web/"), 2, "neither a method"),
                             (("tcp", "web"), 2, "HOST:PORT"), (("GET", "http://web/", "-H", "x"), 2, "Name: value"),
                             (("GET", "http://web/", "--from", "nobody"), 1, "no pod of a workload nobody")]:
        got = mesh.weft("route", *argv, check=False)
        assert got.returncode == code and text in got.stderr, (argv, got.stderr)
    assert "Not a service or pod" in mesh.weft("route", "GET", "http://198.51.100.7/").stdout
