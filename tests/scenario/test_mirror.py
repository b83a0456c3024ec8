"""RequestMirror of manifests through the mesh: copies arrive whole, in HTTP/1 and gRPC, and whatever a mirror does, the
original is answered as if there were none."""
import hashlib
import json
import os
import textwrap

import pytest

from meshes import wait_for
from traffic import PATIENT, metrics, total

pytestmark = pytest.mark.asan

# Writes down what it gets: [path, host, checksum of the content, x-field]. /hang says nothing; with "sloth" it reads a
# head and then nothing more.
APP = textwrap.dedent(r'''
    import hashlib, json, socket, sys, threading, time

    def read_body(f, head):
        if head.get("transfer-encoding") == "chunked":
            body = b""
            while True:
                n = int(f.readline().split(b";")[0], 16)
                body += f.read(n)
                f.readline()
                if n == 0:
                    return body
        return f.read(int(head.get("content-length", 0)))

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
            if "sloth" in sys.argv:
                print(json.dumps("head"), flush=True)
                time.sleep(1000)
            body = read_body(f, head)
            print(json.dumps([path, head["host"], hashlib.sha256(body).hexdigest(), head.get("x-field", ""),
                              sorted(h for h in head if h.startswith("weft-"))]), flush=True)
            if path.endswith("/hang") and "shadow" in sys.argv:
                time.sleep(1000)
            out = ("%s\n" % sys.argv[1]).encode()
            s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(out), out))

    l = socket.create_server(("", 8080), backlog=64)
    print(json.dumps("ready"), flush=True)
    while True:
        threading.Thread(target=serve, args=(l.accept()[0],), daemon=True).start()
''')

GRPC = textwrap.dedent(r'''
    import grpc, json, sys
    from concurrent import futures

    def unary(request, context):
        print(json.dumps(["unary", request.decode()]), flush=True)
        return sys.argv[1].encode()

    calls = {"Unary": grpc.unary_unary_rpc_method_handler(unary)}
    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", calls),))
    server.add_insecure_port("[::]:8080")
    server.start()
    print(json.dumps("ready"), flush=True)
    server.wait_for_termination()
''')

ASK = 'import grpc,sys; print(grpc.insecure_channel("rpc:8080").unary_unary("/t.T/Unary")(sys.argv[1].encode(), timeout=20).decode())'


def http_route(path, mirror, more="", annotations=""):
    return """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: %s, annotations: {%s}}
spec:
  parentRefs: [{kind: Service, group: core, name: web, port: 8080}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /%s}}]
    filters:
    - type: RequestMirror
      requestMirror: {backendRef: {name: %s, port: 8080}%s}
    backendRefs: [{name: web, port: 8080}]
---""" % (path, annotations, path, mirror, more)


ROUTES = http_route("all", "shadow") + http_route("sloth", "sloth") + http_route("nobody", "gone") + \
    http_route("few", "shadow", annotations='mirror.weft.io/max-running: "2"') + \
    http_route("none", "shadow", ", percent: 0") + """
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: rpc}
spec:
  parentRefs: [{kind: Service, group: core, name: rpc, port: 8080}]
  rules:
  - filters:
    - type: RequestMirror
      requestMirror: {backendRef: {name: rpc-shadow, port: 8080}}
    backendRefs: [{name: rpc, port: 8080}]
"""


class Setup:
    def __init__(self, mesh):
        self.mesh = mesh
        mesh.env.update(PATIENT)
        app, rpc = mesh.python(APP), mesh.python(GRPC)
        self.pods = {}
        for name, program, port in (("web", app, "8080/http1"), ("shadow", app, "8080/http1"), ("sloth", app, "8080/http1"),
                                    ("rpc", rpc, "8080/grpc"), ("rpc-shadow", rpc, "8080/grpc")):
            self.pods[name] = mesh.run(name, ["/usr/bin/python3", program, name], [port])
        for name, pod in self.pods.items():
            wait_for(lambda: '"ready"' in pod.output(), name + " runs")
            wait_for(lambda: " %s\n" % name in open(os.path.join(mesh.state_dir, "hosts")).read(), name + "'s name")
        self.client = mesh.client()
        mesh.apply(ROUTES)

    def got(self, pod):
        return [x for x in map(json.loads, self.pods[pod].output().split("\n")[:-1]) if isinstance(x, list)]

    def mirrored(self, route, result):
        return total(metrics(self.client), "weft_mirror_total", route_name=route, result=result)

    def get(self, path, *args):
        a = self.client.http("http://web:8080/" + path, *args)
        assert a.status == 200 and a.body == "web\n", a
        return a


@pytest.fixture(scope="module")
def setup(shared_mesh):
    return Setup(shared_mesh)


@pytest.mark.parametrize("size,chunked", [(0, False), (100, False), (300000, False), (300000, True)])
def test_copies_are_whole(setup, size, chunked):
    path = os.path.join(setup.mesh.dir, "body%d" % size)
    data = os.urandom(size)
    with open(path, "wb") as f:
        f.write(data)
    os.chmod(path, 0o644)
    before = len(setup.got("shadow"))
    setup.get("all/x?y=1", "-X", "POST", "-H", "X-Field: v", "-H", "Expect:", "--data-binary", "@" + path,
              *(["-H", "Transfer-Encoding: chunked"] if chunked else []))
    wait_for(lambda: len(setup.got("shadow")) == before + 1, "the copy")
    assert setup.got("shadow")[-1] == ["/all/x?y=1", "web:8080", hashlib.sha256(data).hexdigest(), "v", []]
    assert setup.got("web")[-1] == setup.got("shadow")[-1]


def test_grpc(setup):
    done = setup.client.exec("/usr/bin/python3", "-c", ASK, "hello", timeout=30)
    assert done.stdout == "rpc\n", done
    wait_for(lambda: setup.got("rpc-shadow") == [["unary", "hello"]], "the copy")
    assert setup.got("rpc") == [["unary", "hello"]]
    wait_for(lambda: setup.mirrored("rpc", "answered") == 1, "counted")


def test_a_mirror_that_reads_nothing(setup):
    """More than all buffers on the way hold: the copy is given up, the original is not slowed."""
    path = os.path.join(setup.mesh.dir, "large")
    with open(path, "wb") as f:
        f.write(b"x" * (64 << 20))
    os.chmod(path, 0o644)
    setup.get("sloth/x", "-X", "POST", "-H", "Expect:", "--data-binary", "@" + path)
    assert setup.got("web")[-1][2] == hashlib.sha256(b"x" * (64 << 20)).hexdigest()
    wait_for(lambda: setup.mirrored("sloth", "slow") == 1, "the copy was given up")


def test_a_mirror_that_does_not_exist(setup):
    setup.get("nobody/x")
    wait_for(lambda: setup.mirrored("nobody", "not_ready") == 1, "counted")


def test_no_more_than_so_many(setup):
    """Two copies hang: further ones are not made."""
    for _ in range(5):
        setup.get("few/hang")
    wait_for(lambda: setup.mirrored("few", "limit") == 3, "three were over the limit")
    assert [g[0] for g in setup.got("shadow")].count("/few/hang") == 2


def test_a_share_of_nothing(setup):
    before = len(setup.got("shadow"))
    for _ in range(20):
        setup.get("none/x")
    setup.get("all/last")
    wait_for(lambda: setup.got("shadow")[-1][0] == "/all/last", "the next copy")
    assert len(setup.got("shadow")) == before + 1


def test_no_traces(setup):
    """Copies are no requests of the service, and nothing was retried."""
    series = metrics(setup.client)
    assert total(series, "request_total", direction="outbound", dst_service="shadow") == 0
    assert total(series, "weft_retry_refused_total") == 0
    for app in [setup.client, *setup.pods.values()]:
        log = app.log()
        assert "runtime error" not in log and "Sanitizer" not in log and "missed an edge" not in log, log[-3000:]
