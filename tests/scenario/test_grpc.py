"""gRPC as people have it (python3-grpcio, which is gRPC's C core) between meshed pods, from outside to a meshed server, and
from a meshed client to a server outside. What is called is in grpc_app.py."""
import json
import os
from concurrent import futures

import pytest

from meshes import wait_for
from places import PYTHON, WAYS, Ways
from traffic import metrics, settled, total

pytest.importorskip("grpc")

HERE = os.path.dirname(os.path.abspath(__file__))
CALLS = ["unary", "server_streaming", "client_streaming", "ping_pong", "deadline", "cancelled_by_the_client", "all_codes",
         "metadata", "sizes", "compressed", "many_streams", "cancel_storm"]
LONG = [("rpc", "long_idle"), ("rpc", "keepalive"), ("aging", "connection_age")]  # most of it is waiting: all at once


@pytest.fixture(scope="module")
def ways(shared_mesh):
    w = Ways(shared_mesh)
    with open(os.path.join(HERE, "grpc_app.py")) as f:
        w.program = shared_mesh.python(f.read())
    try:
        serve = [PYTHON, w.program, "serve", "{port}"]
        w.serve("rpc", serve, 8080)
        w.serve("aging", [*serve, "grpc.max_connection_age_ms=500", "grpc.max_connection_age_grace_ms=5000"], 8081)
        w.serve("frail", ["sh", "-c", "while :; do " + " ".join(serve) + "; done"], 8082, replicas=2)
        yield w
    finally:
        w.end()


def call(ways, way, server, name, *argv, timeout=100):
    done = ways.run(way, server, [PYTHON, ways.program, "call", "{host}:{port}", name, *argv], timeout=timeout)
    assert done.stdout.endswith("fine\n"), (done.stdout[-500:], done.stderr[-3000:])
    return done.stdout


@pytest.fixture(scope="module")
def begun(ways):
    """Calls that take their time, beside the other tests."""
    with futures.ThreadPoolExecutor(16) as pool:
        yield {(name, way): pool.submit(call, ways, way, server, name) for server, name in LONG for way in WAYS}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CALLS)
def test_calls(ways, begun, name, way):
    call(ways, way, "rpc", name)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", [name for _, name in LONG])
def test_long_ones(begun, name, way):
    begun[name, way].result()


@pytest.mark.parametrize("way", WAYS)
def test_a_server_that_dies(ways, way):
    servers, kept, lost = json.loads(call(ways, way, "frail", "restart").split("\n")[0])
    assert kept + lost == 20 and lost > 0
    assert kept == 0 if servers == 1 else kept > 0, (servers, kept, lost)
    if way == "meshed":
        assert servers == 2


def test_counted_by_status(ways):
    def counts():
        out = {}
        for app, direction in ((ways.client, "outbound"), (ways.apps["rpc"][0], "inbound")):
            series = metrics(app)
            for code in ("0", "5", "13", "14"):
                out[direction, code] = total(series, "response_total", direction=direction, grpc_status=code, status_code="200")
            out[direction, "failure"] = total(series, "response_total", direction=direction, classification="failure")
        return out

    before = settled(counts)
    call(ways, "meshed", "rpc", "statuses", *["0"] * 8, *["5"] * 4, "13", "13", "14")
    wait_for(lambda: counts()["inbound", "14"] > before["inbound", "14"], "they are counted")
    after = settled(counts)
    grown = {k: after[k] - before[k] for k in after}
    for direction in ("outbound", "inbound"):
        assert [grown[direction, c] for c in ("0", "5", "13", "14")] == [8, 4, 2, 1], grown
        assert grown[direction, "failure"] == 3, "not found is the caller's affair: %r" % grown
