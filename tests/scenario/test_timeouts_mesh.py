"""Deadlines over two hops of a mesh: client -> web -> back. The applications know nothing of it but traceparent."""
import json

import pytest

# Answers every HTTP/2 request with the head it saw, as JSON. x-next: NAME asks that one before, with the same trace, and
# tells what it got; /hang never answers.
NODE = r'''
import json, socket, subprocess, threading
import h2.config, h2.connection, h2.events

def answer(h, c, lock, stream, headers):
    if headers[":path"] == "/hang":
        return
    out = {"saw": headers}
    if "x-next" in headers:
        command = ["curl", "-sS", "-i", "--http2-prior-knowledge", "-m", "30", "-X", "POST", "-H", "te: trailers", "-H",
                   "content-type: " + headers["content-type"], "http://%s:8080%s" % (headers["x-next"], headers[":path"][4:])]
        if "traceparent" in headers:
            command += ["-H", "traceparent: " + headers["traceparent"]]
        out["next"] = subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout
    with lock:
        h.send_headers(stream, [(":status", "200"), ("content-type", "application/json")])
        h.send_data(stream, json.dumps(out).encode(), end_stream=True)
        c.sendall(h.data_to_send())

def serve(c):
    h, lock = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8")), threading.Lock()
    h.initiate_connection()
    c.sendall(h.data_to_send())
    while True:
        data = c.recv(65536)
        if not data:
            return
        with lock:
            for e in h.receive_data(data):
                if isinstance(e, h2.events.RequestReceived):
                    threading.Thread(target=answer, args=(h, c, lock, e.stream_id, dict(e.headers)), daemon=True).start()
            c.sendall(h.data_to_send())

s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("", 8080))
s.listen(64)
while True:
    c, _ = s.accept()
    threading.Thread(target=serve, args=(c,), daemon=True).start()
'''

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER = "00-0af7651916cd43dd8448eb211c80319d-b7ad6b7169203331-01"


class Chain:
    def __init__(self, mesh):
        node = mesh.python(NODE)
        for name in ("web", "back"):
            mesh.run(name, ["python3", node], ports=["8080/http2"])
        self.client = mesh.client()

    def ask(self, path="/", content="application/grpc", **headers):
        args = ["--http2-prior-knowledge", "-X", "POST", "-H", "te: trailers", "-H", "content-type: " + content]
        for name, value in headers.items():
            args += ["-H", "%s: %s" % (name.replace("_", "-"), value)]
        return self.client.http("http://web:8080" + path, *args, timeout=60)


@pytest.fixture(scope="module")
def chain(shared_mesh):
    return Chain(shared_mesh)


def seconds(text):
    return int(text[:-1]) * {"u": 1e-6, "m": 1e-3, "S": 1}[text[-1]]


def heads(answer):
    """What web and back saw."""
    told = json.loads(answer.body)
    there = json.loads(told["next"].replace("\r\n", "\n").partition("\n\n")[2]) if "next" in told else {"saw": {}}
    return told["saw"], there["saw"]


def test_it_shrinks_on_the_way(chain):
    web, back = heads(chain.ask("/via/", x_next="back", traceparent=TRACE, grpc_timeout="20S"))
    assert 0 < seconds(back["grpc-timeout"]) < seconds(web["grpc-timeout"]) < 20, (web, back)
    for seen in (web, back):
        assert not [n for n in seen if n.startswith("weft")], seen


def test_without_a_trace_it_ends_at_the_application(chain):
    web, back = heads(chain.ask("/via/", x_next="back", grpc_timeout="20S"))
    assert "grpc-timeout" in web and back and "grpc-timeout" not in back


def test_what_has_no_deadline_gets_none(chain):
    web, back = heads(chain.ask("/via/", x_next="back", traceparent=OTHER))
    assert back and "grpc-timeout" not in web and "grpc-timeout" not in back


def test_what_an_application_asks_ends_with_its_own_request(chain):
    """back never answers. Who cuts first of all that know the deadline is chance; that somebody does is not."""
    a = chain.ask("/via/hang", x_next="back", traceparent=TRACE, grpc_timeout="2S")
    assert a.headers["grpc-status"] == "4" and a.headers["weft-code"] == "W3008"
    assert chain.ask(traceparent=TRACE).status == 200


def test_an_application_cannot_make_deadlines(chain):
    web, back = heads(chain.ask("/via/", x_next="back", weft_deadline="1", traceparent=TRACE))
    assert "weft-deadline" not in web and "grpc-timeout" not in web and back
