"""Retries through the mesh that test_delivered.py does not have: gRPC conditions, and what a server takes of many clients
together."""
import json
import textwrap
import time

import pytest

from meshes import wait_for
from traffic import PATIENT, metrics, settled, total

pytestmark = pytest.mark.asan

# Fails the first N calls of an id as the method says. Writes down each call: [method, id].
GRPC = textwrap.dedent(r'''
    import collections, grpc, json, threading
    from concurrent import futures

    seen, lock = collections.Counter(), threading.Lock()

    def count(name, request):
        who, times = request.decode().split()
        with lock:
            seen[who] += 1
            print(json.dumps([name, who]), flush=True)
            return seen[who] <= int(times)

    def trailers_only(request, context):
        if count("TrailersOnly", request):
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        return b"good"

    def other(request, context):
        if count("Other", request):
            context.abort(grpc.StatusCode.NOT_FOUND, "nothing")
        return b"good"

    def after_head(request, context):
        context.send_initial_metadata((("x-head", "1"),))
        if count("AfterHead", request):
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        yield b"good"

    def after_data(request, context):
        if count("AfterData", request):
            yield b"half"
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        yield b"good"

    calls = {"TrailersOnly": grpc.unary_unary_rpc_method_handler(trailers_only),
             "Other": grpc.unary_unary_rpc_method_handler(other),
             "AfterHead": grpc.unary_stream_rpc_method_handler(after_head),
             "AfterData": grpc.unary_stream_rpc_method_handler(after_data)}
    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", calls),))
    server.add_insecure_port("[::]:8080")
    server.start()
    print(json.dumps("ready"), flush=True)
    server.wait_for_termination()
''')

CALL = textwrap.dedent(r'''
    import grpc, json, sys
    method, request = sys.argv[1], sys.argv[2].encode()
    ch = grpc.insecure_channel("rpc:8080", options=[("grpc.enable_retries", 0)])
    got = []
    try:
        if method.startswith("After"):
            for x in ch.unary_stream("/t.T/" + method)(request, timeout=20):
                got.append(x.decode())
        else:
            got.append(ch.unary_unary("/t.T/" + method)(request, timeout=20).decode())
        print(json.dumps([got, "OK"]))
    except grpc.RpcError as e:
        print(json.dumps([got, e.code().name]))
''')

# 503 always; how many requests and of them how many with weft-attempt is at /count.
BUSY = textwrap.dedent(r'''
    import http.server, json
    n = [0, 0]

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        def log_message(self, *a): pass
        def do_GET(self):
            if self.path != "/count":
                n[0] += 1
                n[1] += self.headers.get("weft-attempt") is not None
            out = json.dumps(n).encode()
            self.send_response(200 if self.path == "/count" else 503)
            self.send_header("Content-Length", str(len(out)))
            self.end_headers()
            self.wfile.write(out)

    s = http.server.ThreadingHTTPServer(("", 8080), Handler)
    print(json.dumps("ready"), flush=True)
    s.serve_forever()
''')

HAMMER = textwrap.dedent(r'''
    import collections, http.client, json, sys
    c = http.client.HTTPConnection("busy", 8080, timeout=60)
    codes = collections.Counter()
    for i in range(int(sys.argv[1])):
        c.request("GET", "/x")
        r = c.getresponse()
        r.read()
        codes[r.getheader("weft-code") or str(r.status)] += 1
    print(json.dumps(codes))
''')

ROUTES = """
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: rpc, annotations: {retry.linkerd.io/grpc: unavailable, retry.linkerd.io/limit: "2"}}
spec:
  parentRefs: [{kind: Service, group: core, name: rpc, port: 8080}]
  rules:
  - backendRefs: [{name: rpc, port: 8080}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: busy
  annotations: {retry.linkerd.io/http: "503", retry.linkerd.io/limit: "3", retry.weft.io/budget-min-per-second: "10000"}
spec:
  parentRefs: [{kind: Service, group: core, name: busy, port: 8080}]
  rules:
  - backendRefs: [{name: busy, port: 8080}]
"""


class Setup:
    def __init__(self, mesh):
        self.mesh = mesh
        mesh.env.update(PATIENT)
        self.rpc = mesh.run("rpc", ["/usr/bin/python3", mesh.python(GRPC)], ["8080/grpc"])
        self.busy = mesh.run("busy", ["/usr/bin/python3", mesh.python(BUSY)], ["8080/http1"], env={"WEFT_KEEP_ATTEMPT": "true"})
        for pod in (self.rpc, self.busy):
            wait_for(lambda: '"ready"' in pod.output(), "it runs")
        self.call_program, self.hammer_program = mesh.python(CALL), mesh.python(HAMMER)
        self.clients = [mesh.client("client%d" % i) for i in range(3)]
        mesh.apply(ROUTES)
        self.ids = 0

    def call(self, method, times):
        self.ids += 1
        who = "id%d" % self.ids
        done = self.clients[0].exec("/usr/bin/python3", self.call_program, method, "%s %d" % (who, times), timeout=40)
        assert done.returncode == 0, done
        seen = [x for x in map(json.loads, self.rpc.output().split("\n")[:-1]) if x == [method, who]]
        return (*json.loads(done.stdout), len(seen))


@pytest.fixture(scope="module")
def setup(shared_mesh):
    return Setup(shared_mesh)


@pytest.mark.parametrize("method,times,want", [
    ("TrailersOnly", 0, (["good"], "OK", 1)),
    ("TrailersOnly", 1, (["good"], "OK", 2)),
    ("TrailersOnly", 2, (["good"], "OK", 3)),
    ("TrailersOnly", 9, ([], "UNAVAILABLE", 3)),
    ("Other", 1, ([], "NOT_FOUND", 1)),
    ("AfterHead", 0, (["good"], "OK", 1)),
    ("AfterHead", 1, (["good"], "OK", 2)),
    ("AfterHead", 9, ([], "UNAVAILABLE", 3)),
    ("AfterData", 1, (["half"], "UNAVAILABLE", 1)),
])
def test_grpc_conditions(setup, method, times, want):
    """A status before any content is a reason for another attempt, behind content it is not."""
    assert setup.call(method, times) == want


def test_grpc_is_counted(setup):
    def counted():
        series = metrics(setup.clients[0])
        return (total(series, "outbound_http_route_retry_requests_total", route_name="rpc"),
                total(series, "outbound_http_route_retry_successes_total", route_name="rpc"),
                total(series, "weft_retry_refused_total", route_name="rpc", reason="LIMIT"))
    assert settled(counted) == (1 + 2 + 2 + 1 + 2, 3, 2)


def test_it_is_seen_without_prometheus(setup):
    """weft stat and SQL say what was not made again and why."""
    def row():
        return next((r for r in setup.mesh.json("stat", "--window", "1h") if r["name"] == "rpc"), {})
    wait_for(lambda: row().get("decisions", {}).get("not_retried", {}).get("LIMIT") == 2 and row()["retries"] == 8,
             "the reasons are shown")
    assert "2 LIMIT" in row()["not_retried"] or ", ..." in row()["not_retried"], row()
    head, line = [x.split() for x in setup.mesh.weft("stat", "--window", "1h").stdout.splitlines()
                  if x.split()[1] in ("NAME", "rpc")]
    assert {"TRIES", "RETRIES", "NOT_RETRIED", "EJECTED"} <= set(head) and "LIMIT" in " ".join(line)
    assert setup.mesh.sql("select source, service, sum(count) as n from mesh_decisions where width_s=3600 and "
                          "what='not_retried' and reason='LIMIT' and service='rpc' group by 1, 2") == \
        [{"source": "client0", "service": "rpc", "n": 2}]


def test_what_a_server_takes_of_all_clients_together(setup):
    """Three clients whose own budgets allow everything: the server's side takes a fifth and ten a second in all."""
    begun, n = time.monotonic(), 300
    asking = [c.popen("/usr/bin/python3", setup.hammer_program, str(n), stdout=-1) for c in setup.clients]
    codes = {}
    for p in asking:
        for code, k in json.loads(p.communicate(timeout=120)[0]).items():
            codes[code] = codes.get(code, 0) + k
    seconds = time.monotonic() - begun
    requests, further = json.loads(setup.clients[0].http("http://busy:8080/count").body)
    first = 3 * n
    assert requests - further == first
    assert further >= 100, "some are taken"
    assert further <= first / 5 + 100 * (seconds / 10 + 1), (further, seconds)
    assert further < 2 * first, "without it: three for each"
    assert set(codes) == {"503", "W7008"} and sum(codes.values()) == first, codes
    wait_for(lambda: any(total(metrics(c), "weft_retry_refused_total", route_name="busy", reason="PRESSURE") > 0
                         for c in setup.clients), "clients were told to stop")
    wait_for(lambda: total(metrics(setup.busy), "weft_mesh_answers_total", direction="inbound", code="W7008")
             >= codes["W7008"], "counted beside the application")
    assert "further attempts are refused port=8080 pressure=20" in setup.busy.log()
    wait_for(lambda: any(r["kind"] == "ATTEMPTS_REFUSED" for r in setup.mesh.sql("select kind from mesh_pod_events")),
             "the event")


def test_nothing_bad_in_the_logs(setup):
    for app in (setup.rpc, setup.busy, *setup.clients):
        log = app.log()
        assert "runtime error" not in log and "Sanitizer" not in log and "missed an edge" not in log, log[-3000:]
