"""What a port speaks: found out without a wait, learned at the server's side, known to everybody, forgotten with the
version. Every program runs with no protocol named and with an empty list of opaque ports."""
import os
import signal
import socket
import textwrap

import pytest

from meshes import wait_for
from traffic import metrics, settled, total

PYTHON = "/usr/bin/python3"
NO_HINTS = {"WEFT_OPAQUE_PORTS": ""}

# One program, several characters, chosen by its argument.
SERVER = textwrap.dedent(r'''
    import socket, socketserver, sys, time
    kind = sys.argv[1]
    class H(socketserver.BaseRequestHandler):
        def handle(self):
            s = self.request
            if kind == "banner":                     # speaks first
                s.sendall(b"220 here I am\r\n")
            elif kind == "settings":                 # HTTP/2, and sends its SETTINGS before it hears the client
                s.sendall(b"\0\0\0\4\0\0\0\0\0")
                data = b""
                while len(data) < 24:
                    data += s.recv(4096)
                assert data.startswith(b"PRI * HTTP/2.0"), data
                import h2.connection, h2.config, h2.events
                c = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
                c.initiate_connection()
                c.data_to_send()                     # they went already
                while data:
                    for e in c.receive_data(data):
                        if isinstance(e, h2.events.RequestReceived):
                            c.send_headers(e.stream_id, [(":status", "200"), ("x-spoke", "h2")])
                            c.send_data(e.stream_id, b"two", end_stream=True)
                    s.sendall(c.data_to_send())
                    data = s.recv(65536)
                return
            elif kind == "closes":                   # has nothing to say, to anybody
                return
            while data := s.recv(65536):
                if kind == "echo":
                    s.sendall(data)
                elif kind == "http":
                    if not data.startswith((b"GET", b"POST")):
                        s.sendall(b"<h1>what?</h1>")  # HTTP/0.9 style, as Python's own server does
                        return
                    s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                elif kind == "banner":
                    s.sendall(b"250 " + data)
    class S(socketserver.ThreadingTCPServer):
        address_family = socket.AF_INET6
        allow_reuse_address = daemon_threads = True
        request_queue_size = 128
    S(("::", int(sys.argv[2])), H).serve_forever()
''')

# Connects, says the pieces with a pause between them (the first pause before the first piece), prints what comes
# until the server has said `want` bytes or ended.
CLIENT = textwrap.dedent(r'''
    import socket, sys, time
    host, port, want = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    s = socket.create_connection((host, port), timeout=20)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for piece in sys.argv[4:]:
        if piece.startswith("sleep:"):
            time.sleep(float(piece[6:]))
        elif piece.startswith("read:"):
            sys.stdout.write(s.recv(int(piece[5:])).decode("latin1"))
        else:
            s.sendall(piece.encode().decode("unicode_escape").encode("latin1"))
    got = b""
    while len(got) < want:
        d = s.recv(65536)
        if not d:
            break
        got += d
    sys.stdout.write(got.decode("latin1"))
''')


class Town:
    def __init__(self, mesh):
        self.mesh = mesh
        self.server_py, self.client_py = mesh.python(SERVER), mesh.python(CLIENT)
        self.me = mesh.run("client", ["sleep", "100000"], env=NO_HINTS)

    def serve(self, name, kind, port, *options, **kw):
        return self.mesh.run(name, [PYTHON, self.server_py, kind, str(port)], ports=[str(port)], env=NO_HINTS,
                             options=options, **kw)

    def talk(self, host, port, want, *pieces, who=None):
        done = (who or self.me).exec(PYTHON, self.client_py, host, str(port), str(want), *pieces, timeout=30)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ready(self, host, port, want, *pieces):
        def ask():
            try:
                return self.talk(host, port, want, *pieces)
            except AssertionError:
                return None
        return wait_for(ask, host + " answers", 20)

    def lesson(self, workload, port):
        rows = self.mesh.sql("select protocol, app_version from mesh_ports where source='learned' and workload='%s' "
                             "and port=%d" % (workload, port))
        return [(r["protocol"], r["app_version"]) for r in rows]

    def counted(self, app, family, **labels):
        return settled(lambda: total(metrics(app), family, **labels))


@pytest.fixture(scope="module")
def town(shared_mesh):
    return Town(shared_mesh)


def dials(town, app, direction, after):
    return town.counted(app, "weft_detect_dials_total", direction=direction, after=after)


def knows(town, host, port, lesson):
    """Whether the client's proxy has the lesson: the next silent connection is dialled because of it."""
    def ask():
        before = total(metrics(town.me), "weft_detect_dials_total", direction="outbound", after=lesson)
        town.talk(host, port, 4)
        return wait_for(lambda: total(metrics(town.me), "weft_detect_dials_total", direction="outbound",
                                      after=lesson) > before or "not", "a count", 4) is True
    return ask


def test_who_speaks_first_is_learned_and_waited_for_no_more(town):
    server = town.serve("post", "banner", 7001)
    assert town.ready("post", 7001, 15).startswith("220 here")
    wait_for(lambda: town.lesson("post", 7001) == [("opaque", "")], "the lesson is stored")
    wait_for(knows(town, "post", 7001, "lesson"), "the client's proxy has it")
    silence = dials(town, town.me, "outbound", "silence")
    lesson = dials(town, town.me, "outbound", "lesson")
    for _ in range(5):
        assert town.talk("post", 7001, 15).startswith("220 here")
    assert dials(town, town.me, "outbound", "silence") == silence
    assert dials(town, town.me, "outbound", "lesson") == lesson + 5
    series = metrics(town.me)
    assert total(series, "weft_detect_results_total", direction="outbound", result="server_first") >= 7
    assert total(series, "weft_detect_results_total", direction="outbound", result="read_timeout") == 0
    assert total(series, "weft_detect_delay_ms_count", direction="outbound", result="server_first") >= 7
    # The server's proxy: connections of the mesh say what they are, so that nothing is looked at there.
    assert total(metrics(server), "weft_detect_results_total", direction="inbound", result="read_timeout") == 0


def test_garbage_teaches_nothing_about_an_http_server(town):
    town.serve("site", "http", 7002)
    assert "200 OK" in town.ready("site", 7002, 40, "GET / HTTP/1.1\\r\\nHost: site\\r\\n\\r\\n")
    wait_for(lambda: town.lesson("site", 7002) == [("http1", "")], "the lesson is stored")
    for _ in range(6):
        assert "what?" in town.talk("site", 7002, 10, "\\x01\\x02\\x03 garbage\\r\\n")
    assert town.me.http("http://site:7002/").body == "ok"
    assert town.lesson("site", 7002) == [("http1", "")]
    # The client's proxy does not take the lesson for more than it is: other bytes pass, too, also late ones.
    assert "what?" in town.talk("site", 7002, 10, "sleep:0.4", "\\x01\\x02\\x03 late garbage\\r\\n")


def test_garbage_first_then_http(town):
    town.serve("later", "http", 7003)
    town.ready("later", 7003, 10, "\\x01\\x02 garbage\\r\\n")
    for _ in range(6):
        assert "what?" in town.talk("later", 7003, 10, "\\x01\\x02\\x03 garbage\\r\\n")
    assert town.lesson("later", 7003) == []
    assert town.me.http("http://later:7003/").body == "ok"
    wait_for(lambda: town.lesson("later", 7003) == [("http1", "")], "the lesson is stored")


def test_conversations_teach_after_a_few(town):
    town.serve("chat", "echo", 7004)
    turns = ("\\x05hello", "read:100", "\\x05again")
    town.ready("chat", 7004, 6, *turns)
    for _ in range(3):
        assert town.talk("chat", 7004, 6, *turns) == "\x05hello\x05again"
    wait_for(lambda: town.lesson("chat", 7004) == [("opaque", "")], "the lesson is stored")
    # What may still become HTTP passes at once now, instead of waiting for the rest of a line.
    assert wait_for(lambda: town.talk("chat", 7004, 4, "get ") == "get ", "no wait")
    # A lesson is no promise: a whole request line is HTTP for the client's proxy all the same, and the echo is none.
    assert town.me.http("http://chat:7004/").status == 502


def test_a_server_of_http2_that_does_not_wait(town):
    town.serve("eager", "settings", 7005)
    ask = ("curl", "-sS", "--http2-prior-knowledge", "-m", "10", "-D", "-", "http://eager:7005/")
    wait_for(lambda: "x-spoke: h2" in town.me.exec(*ask).stdout, "eager answers", 20)
    # A client that takes its time meanwhile hears the server's SETTINGS from us, and is still a client of HTTP/2.
    slow = town.mesh.python(textwrap.dedent(r'''
        import socket, time, h2.connection, h2.events
        s = socket.create_connection(("eager", 7005), timeout=15)
        time.sleep(0.2)
        c = h2.connection.H2Connection()
        c.initiate_connection()
        c.send_headers(1, [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "eager")],
                       end_stream=True)
        s.sendall(c.data_to_send())
        body, done = b"", False
        while not done:
            for e in c.receive_data(s.recv(65536)):
                if isinstance(e, h2.events.DataReceived):
                    body += e.data
                done = done or isinstance(e, h2.events.StreamEnded)
            s.sendall(c.data_to_send())
        print(body.decode())
    '''))
    before = town.counted(town.me, "weft_detect_results_total", direction="outbound", result="http/2")
    assert town.me.exec(PYTHON, slow).stdout == "two\n"
    assert town.counted(town.me, "weft_detect_results_total", direction="outbound", result="http/2") == before + 1
    wait_for(lambda: town.lesson("eager", 7005) == [("http2", "")], "the lesson is stored")


def test_a_server_that_ends_without_a_word(town):
    town.serve("mute", "closes", 7006)
    wait_for(lambda: town.mesh.sql("select 1 as n from mesh_endpoints where service='mute' and ready"), "mute serves")
    assert town.talk("mute", 7006, 1) == ""
    assert total(metrics(town.me), "weft_detect_results_total", direction="outbound", result="read_timeout") == 0


def test_a_new_version_is_learned_anew(town):
    old = town.serve("shop", "banner", 7007, "--version", "1")
    town.ready("shop", 7007, 15)
    wait_for(lambda: town.lesson("shop", 7007) == [("opaque", "1")], "the lesson is stored")
    new = town.serve("shop", "http", 7007, "--version", "2")
    wait_for(lambda: len(town.mesh.sql("select 1 as n from mesh_endpoints where service='shop' and ready")) >= 2,
             "both serve")
    assert old.stop() in (0, 143)
    wait_for(lambda: town.lesson("shop", 7007) == [], "the lesson is forgotten")
    wait_for(lambda: town.me.http("http://shop:7007/").body == "ok", "the new version answers")
    wait_for(lambda: town.lesson("shop", 7007) == [("http1", "2")], "the new lesson is stored")
    assert new.process.poll() is None
    rows = town.mesh.json("get", "ports", "shop")
    assert [(r["protocol"], r["source"], r["app_version"]) for r in rows] == [("http1", "learned", "2")]


def test_what_is_declared_wins(town):
    town.mesh.run("said", [PYTHON, town.server_py, "banner", "7008"], ports=["7008/opaque"], env=NO_HINTS)
    town.ready("said", 7008, 15)
    for _ in range(3):
        town.talk("said", 7008, 15)
    rows = town.mesh.sql("select distinct protocol, source from mesh_ports where workload='said' order by source")
    assert {"protocol": "opaque", "source": "declared"} in rows
    # Not looked at: no result is counted for it.
    before = town.counted(town.me, "weft_detect_results_total", direction="outbound")
    assert town.talk("said", 7008, 15).startswith("220")
    assert town.counted(town.me, "weft_detect_results_total", direction="outbound") == before


def test_a_client_outside_of_the_mesh_does_not_wait_twice(town):
    server = town.serve("porch", "banner", 7009)
    town.ready("porch", 7009, 15)
    ip = server.exec("hostname", "-I").stdout.split()[0]

    def banner():
        with socket.create_connection((ip, 7009), timeout=10) as s:
            return s.recv(100)
    assert banner().startswith(b"220")
    silence = dials(town, server, "inbound", "silence")
    for _ in range(3):
        assert banner().startswith(b"220")
    assert dials(town, server, "inbound", "silence") == silence


def test_lessons_come_back_after_their_keepers_died(town):
    server = town.serve("keeper", "banner", 7010)
    town.ready("keeper", 7010, 15)
    wait_for(lambda: town.lesson("keeper", 7010) == [("opaque", "")], "the lesson is stored")
    for name in ("weft-link", "weft-proxy.0"):
        pid = server.status()[name]["pid"]
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: server.status().get(name, {}).get("pid") not in (pid, None, 0), name + " is back")
        town.ready("keeper", 7010, 15)
    assert town.lesson("keeper", 7010) == [("opaque", "")]
