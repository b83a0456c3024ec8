"""Real libraries through the mesh (gRPC, WebSocket), routes with timeouts and retries, and rollouts."""
import json
import textwrap
import time

import pytest

from meshes import AT_ONCE, wait_for
from test_proxy_mesh import SERVER, serves

PYTHON = "/usr/bin/python3"

GRPC_SERVER = textwrap.dedent(r'''
    import grpc, time
    from concurrent import futures

    def unary(request, context):
        context.set_trailing_metadata((("x-sum", "42"),))
        return request.upper()

    def fail(request, context):
        context.abort(grpc.StatusCode.NOT_FOUND, "nothing here")

    def stream(requests, context):
        for r in requests:
            yield r + b"!"

    def many(request, context):
        for i in range(int(request)):
            yield b"x" * 10000

    def slow(request, context):
        time.sleep(5)
        return b""

    calls = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "Slow": grpc.unary_unary_rpc_method_handler(slow),
        "Stream": grpc.stream_stream_rpc_method_handler(stream),
        "Many": grpc.unary_stream_rpc_method_handler(many),
    }
    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", calls),))
    server.add_insecure_port("[::]:8080")
    server.start()
    server.wait_for_termination()
''')

GRPC_CLIENT = textwrap.dedent(r'''
    import grpc, json, time
    ch = grpc.insecure_channel("rpc:8080")
    out = {}
    unary = ch.unary_unary("/t.T/Unary")
    answer, call = unary.with_call(b"hello", timeout=10)
    out["unary"] = answer.decode()
    out["trailers"] = dict(call.trailing_metadata())
    try:
        ch.unary_unary("/t.T/Fail")(b"", timeout=10)
    except grpc.RpcError as e:
        out["fail"] = [e.code().name, e.details()]
    try:
        ch.unary_unary("/t.T/Slow")(b"", timeout=0.5)
    except grpc.RpcError as e:
        out["slow"] = e.code().name
    out["many"] = sum(len(x) for x in ch.unary_stream("/t.T/Many")(b"300", timeout=20))

    def talk():
        for i in range(5):
            yield b"%d" % i
            time.sleep(0.05)
    begun = time.monotonic()
    out["stream"] = [x.decode() for x in ch.stream_stream("/t.T/Stream")(talk(), timeout=10)]
    print(json.dumps(out))
''')

WS_SERVER = textwrap.dedent(r'''
    import asyncio, websockets
    async def echo(ws, *_):
        async for m in ws:
            await ws.send(m)
    async def main():
        async with websockets.serve(echo, None, 8080):
            await asyncio.Future()
    asyncio.run(main())
''')

WS_CLIENT = textwrap.dedent(r'''
    import asyncio, websockets
    async def main():
        async with websockets.connect("ws://chat:8080/") as ws:
            for n in (1, 1000, 300000):
                await ws.send("x" * n)
                assert len(await ws.recv()) == n
        print("fine")
    asyncio.run(main())
''')


def has(module, tried={}):
    import subprocess
    if module not in tried:
        tried[module] = subprocess.run([PYTHON, "-c", "import " + module], capture_output=True).returncode == 0
    return tried[module]


@pytest.mark.skipif(not has("grpc"), reason="python3-grpcio is not installed")
def test_grpc(shared_mesh):
    shared_mesh.run("rpc", [PYTHON, shared_mesh.python(GRPC_SERVER)], ports=["8080"])
    client = shared_mesh.client("grpc-client")
    program = shared_mesh.python(GRPC_CLIENT)
    done = wait_for(lambda: (lambda d: d if d.returncode == 0 else None)(client.exec(PYTHON, program, timeout=60)),
                    "the calls end well", 60)
    got = json.loads(done.stdout)
    assert got["unary"] == "HELLO" and got["trailers"]["x-sum"] == "42"
    assert got["fail"] == ["NOT_FOUND", "nothing here"]
    assert got["slow"] == "DEADLINE_EXCEEDED"
    assert got["many"] == 3000000
    assert got["stream"] == ["0!", "1!", "2!", "3!", "4!"]


@pytest.mark.skipif(not has("grpc"), reason="python3-grpcio is not installed")
def test_grpc_without_a_server(shared_mesh):
    """The mesh's own answer is one that a gRPC library understands."""
    shared_mesh.run("dead", ["sleep", "1000"], ports=["8080"], env=AT_ONCE)
    client = shared_mesh.client("grpc-client")
    program = shared_mesh.python(textwrap.dedent(r'''
        import grpc
        try:
            grpc.insecure_channel("dead:8080").unary_unary("/t.T/Unary")(b"", timeout=10)
        except grpc.RpcError as e:
            print(e.code().name, e.details())
    '''))
    done = wait_for(lambda: (lambda d: d if "W2" in d.stdout else None)(client.exec(PYTHON, program, timeout=60)),
                    "an answer of the mesh", 30)
    assert done.stdout.startswith("UNAVAILABLE") and "APP_REFUSED" in done.stdout


@pytest.mark.skipif(not has("websockets"), reason="python3-websockets is not installed")
def test_websocket(shared_mesh):
    shared_mesh.run("chat", [PYTHON, shared_mesh.python(WS_SERVER)], ports=["8080"])
    client = shared_mesh.client("ws-client")
    program = shared_mesh.python(WS_CLIENT)
    wait_for(lambda: "fine" in client.exec(PYTHON, program, timeout=30).stdout, "the conversation", 30)


ROUTE = textwrap.dedent('''
    apiVersion: gateway.networking.k8s.io/v1
    kind: HTTPRoute
    metadata:
      name: web
      namespace: default
      annotations:
        retry.linkerd.io/http: 5xx
        retry.linkerd.io/limit: "2"
    spec:
      parentRefs:
      - {name: web, kind: Service, group: core, port: 8080}
      rules:
      - matches:
        - path: {type: PathPrefix, value: /slow}
        timeouts: {request: 300ms}
      - matches:
        - path: {type: PathPrefix, value: /}
''')

SLOW_SERVER = textwrap.dedent(r'''
    import http.server, itertools, time
    count = itertools.count()
    class H(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        def do_GET(self):
            if self.path == "/slow":
                time.sleep(2)
            bad = self.path == "/flaky" and next(count) % 2 == 0
            self.send_response(503 if bad else 200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")
        def log_message(self, *a):
            pass
    http.server.ThreadingHTTPServer(("", 8080), H).serve_forever()
''')


def test_route_with_timeout_and_retries(mesh):
    mesh.run("web", ["python3", mesh.python(SLOW_SERVER)], ports=["8080"])
    client = mesh.client()
    wait_for(lambda: serves(client), "web serves")
    mesh.apply(ROUTE)
    got = client.http("http://web:8080/slow")
    assert got.status == 504 and got.headers["weft-code"] == "W3002"
    assert "HTTPRoute/default/web" in got.headers["proxy-status"]
    for _ in range(20):
        assert client.http("http://web:8080/flaky").status == 200
    wait_for(lambda: [r for r in mesh.json("stat") if r["name"] == "web" and r["retries"] > 0], "retries are shown")


def test_rollout_loses_no_request(mesh):
    """An instance leaves while requests come: it says so first, nobody notices."""
    program = mesh.python(SERVER)
    mesh.run("web", ["python3", program], ports=["8080"])
    old = mesh.run("web", ["python3", program], ports=["8080"])
    client = mesh.client()
    wait_for(lambda: serves(client), "web serves")
    wrk = client.popen("wrk", "-t1", "-c8", "-d5", "http://web:8080/", stdout=-1, text=True)
    time.sleep(1)
    old.stop()
    mesh.run("web", ["python3", program], ports=["8080"])
    out, _ = wrk.communicate(timeout=30)
    assert "Non-2xx" not in out and "Socket errors" not in out, out
