"""Names and their order arrive as they were written, also where HTTP/2 carries them between the pods."""
import pytest

from meshes import AT_ONCE, wait_for
from raw_http import Recorder, Stream, address_of, ask, connect, pod_address, read_answer

pytestmark = pytest.mark.asan

HEADS = [
    ["Host: web", "User-Agent: x/1", "Accept: */*"],
    ["host: web", "user-agent: x/1", "accept: */*"],
    ["HOST: web", "X-B3-TraceId: 1", "DNT: 1", "sec-ch-ua: y", "Accept: */*"],
    ["Accept: */*", "X-ONE: 1", "Host: web", "ETag: \"1\"", "x-two: 2"],
    ["User-Agent: x/1", "Cookie: a=1", "cookie: b=2", "Host: web", "X-Last: 1"],
    ["Host: web", "X-1-a: 1", "x_Y.z!: 2", "A: 3", "b: 4"],
    ["Host: web"] + ["X-Field-%d: %d" % (i, i) for i in range(80)],
    ["Host: web"] + ["%s-Field-%d: %d" % ("X" if i % 3 else "x", i, i) for i in range(150)],
]


def respond(recorder, m, st, c):
    """The answer's fields are the request's own `X-Say: NAME: value|...`."""
    say = m.get("x-say")
    if say is None:
        return Recorder.echo(recorder, m, st, c)
    lines = [line.encode() for line in say.split("|")]
    c.sendall(b"\r\n".join([b"HTTP/1.1 200 OK", *lines, b"", b""]) + b"hello")
    return True


@pytest.fixture(scope="module")
def pods(shared_mesh):
    web = shared_mesh.run("web", ["sleep", "100000"], ports=["8080/http1"], env=AT_ONCE)
    client = shared_mesh.client()
    recorder = Recorder(web, 8080, respond)
    wait_for(lambda: address_of(shared_mesh, "web"), "the server's name")
    wait_for(lambda: client.http("http://web:8080/").status == 200, "web serves")
    yield shared_mesh, client, web, recorder
    recorder.close()


@pytest.fixture(params=["pair", "unmeshed client", "unmeshed server"])
def way(request, pods):
    """(connect(), recorder) of a pair of pods, of a client outside of the mesh, and of a server outside of it."""
    mesh, client, web, recorder = pods
    recorder.reset()
    if request.param == "pair":
        yield lambda: connect(client, address_of(mesh, "web"), 8080), recorder
    elif request.param == "unmeshed client":
        yield lambda: connect(None, pod_address(web), 8080), recorder
    else:
        here = mesh.net.rsplit(".", 2)[0]
        gateway = "%s.%s.1" % (here, mesh.net.split(".")[2])
        outside = Recorder(None, 18080, respond, host=gateway)
        yield lambda: connect(client, gateway, 18080), outside
        outside.close()


def request(lines, start="GET / HTTP/1.1", content=b""):
    return "\r\n".join([start, *lines, "", ""]).encode() + content


def test_requests(way):
    open_one, recorder = way
    with open_one() as s:
        for lines in HEADS:
            recorder.reset()
            assert ask(s, request(lines)).status == 200
            got = [line for line in recorder.requests[-1].lines if not line.startswith("l5d-")]
            assert got == lines or got == joined(lines)


def joined(lines):
    """Cookie lines become one on the way, in the place of the first."""
    cookies = [line.partition(": ")[2] for line in lines if line.lower().startswith("cookie:")]
    out = []
    for line in lines:
        if not line.lower().startswith("cookie:"):
            out.append(line)
        elif cookies:
            out.append(line.partition(":")[0] + ": " + "; ".join(cookies))
            cookies = []
    return out


@pytest.mark.parametrize("lines", [
    ["Host: web", "Content-Length: 5", "Accept: */*"],
    ["host: web", "accept: */*", "content-length: 5"],
    ["content-LENGTH: 5", "Host: web"],
    ["Accept: */*", "Content-Length: 5", "HOST: web", "ETag: 1"],
])
def test_the_place_of_content_length(way, lines):
    open_one, recorder = way
    with open_one() as s:
        assert ask(s, request(lines, "POST /x HTTP/1.1", b"hello")).content == b"POST /x HTTP/1.1 hello"
    assert [line for line in recorder.requests[-1].lines if not line.startswith("l5d-")] == lines


@pytest.mark.parametrize("lines", [
    ["Server: x", "Date: now", "Content-Type: text/plain", "Content-Length: 5", "ETag: 1", "Accept-Ranges: bytes"],
    ["server: x", "content-length: 5", "x-a: b"],
    ["SERVER: x", "WWW-Authenticate: y", "Content-Length: 5"],
    ["Set-Cookie: a=1", "Set-Cookie: b=2", "set-cookie: c=3", "content-length: 5"],
])
def test_answers(way, lines):
    open_one, _ = way
    with open_one() as s:
        for _ in range(3):
            got = ask(s, request(["Host: web", "X-Say: " + "|".join(lines)]))
            assert got.lines == lines and got.content == b"hello"


def test_trailers(way):
    open_one, recorder = way
    names = ["X-Sum: 1", "x-low: 2", "X-MD5: 3", "ETag-Like: 4"]
    with open_one() as s:
        s.sendall(request(["Host: web", "TE: trailers", "Connection: TE", "Transfer-Encoding: chunked"], "POST / HTTP/1.1"))
        s.sendall(b"5\r\nhello\r\n0\r\n" + "\r\n".join(names).encode() + b"\r\n\r\n")
        assert read_answer(Stream(s)).status == 200
    assert recorder.requests[-1].trailers == names


def test_trailers_of_answers(way):
    open_one, recorder = way
    names = ["X-Sum: 1", "x-low: 2", "X-MD5: 3", "weft-case-not: 4"]

    def chunked(_recorder, _m, _st, c):
        c.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n" +
                  "\r\n".join(names).encode() + b"\r\nWeft-Case: C\r\n\r\n")
    before, recorder.answer = recorder.answer, chunked
    try:
        with open_one() as s:
            got = ask(s, request(["Host: web", "TE: trailers", "Connection: TE"]))
    finally:
        recorder.answer = before
    assert got.content == b"hello" and got.trailers == names[:3]


def test_nobody_may_say_it_but_the_mesh(way):
    open_one, recorder = way
    say = "X-Say: content-length: 5|L5d-Orig-Proto: HTTP/1.1; case=C|x-b: 1"
    with open_one() as s:
        got = ask(s, request(["Host: web", "l5d-orig-proto: HTTP/1.0; case=C", "Weft-Case: C", "x-a: 1", say]))
    assert got.lines == ["content-length: 5", "x-b: 1"]
    assert [line for line in recorder.requests[-1].lines if not line.startswith("l5d-")] == ["Host: web", "x-a: 1", say]
