"""Connections of no protocol through the pair: ends, resets, readers that rest, machines that are gone.
Limits are short here: what is allowed to last lasts several times as long as each of them."""
import hashlib
import json
import subprocess

import pytest

from meshes import wait_for

SHORT = {"WEFT_PEER_TIMEOUT": "1s", "WEFT_STALL_TIMEOUT": "1s"}
MUCH = 24 << 20  # more than all sockets on the way keep
REST = 4

# The server of every scenario; the first line says what it does. It prints how each connection ended.
SERVER = r'''
import json, socket, struct, sys, threading
MUCH = %d
def end_of(s):
    n = 0
    try:
        while b := s.recv(65536):
            n += len(b)
        return n, "end"
    except OSError as e:
        return n, type(e).__name__
def serve(s):
    f = s.makefile("rb", buffering=0)
    what = f.readline().decode().split()
    if not what:
        return
    if what[0] == "GET":
        while f.readline().strip():
            pass
        s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %%d\r\nConnection: close\r\n\r\n" %% MUCH)
        what = ["much"]
    if what[0] == "listen":
        print(json.dumps(end_of(s)), flush=True)
    elif what[0] == "reset":
        s.sendall(b"x" * 100000)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        f.close()
    elif what[0] == "answer":
        n, end = end_of(s)
        s.sendall(b"%%d %%s" %% (n, end.encode()))
    elif what[0] == "much":
        s.sendall(bytes(range(256)) * (MUCH // 256))
    f.close()
    s.close()
def listen(port):
    l = socket.create_server(("", port), backlog=64)
    while True:
        threading.Thread(target=serve, args=(l.accept()[0],), daemon=True).start()
for port in sys.argv[1:]:
    threading.Thread(target=listen, args=(int(port),)).start()
''' % MUCH

# CLIENT: what port -> one line of JSON.
CLIENT = r'''
import hashlib, json, socket, struct, sys, time
what, host, port, rest = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
s = socket.create_connection((host, port), timeout=120)
def tell(*a):
    print(json.dumps(a), flush=True)
def rest_of(s):
    n, h = 0, hashlib.sha256()
    try:
        while b := s.recv(65536):
            n += len(b)
            h.update(b)
        return n, "end", h.hexdigest()
    except OSError as e:
        return n, type(e).__name__, h.hexdigest()
if what == "reset":
    s.sendall(b"listen\n" + b"y" * 100000)
    time.sleep(rest)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()
elif what == "be-reset":
    s.sendall(b"reset\n")
    tell(*rest_of(s))
elif what == "half":
    s.sendall(b"answer\n" + b"y" * 100000)
    s.shutdown(socket.SHUT_WR)
    tell(s.recv(100).decode(), rest_of(s)[1])
elif what == "rest":
    s.sendall(b"GET / HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n" if port == 8080 else b"much\n")
    s.recv(1, socket.MSG_PEEK)
    time.sleep(rest)
    head = b""
    while port == 8080 and not head.endswith(b"\r\n\r\n"):
        head += s.recv(1)
    tell(*rest_of(s))
elif what == "pour":
    s.sendall(b"listen\n")
    tell("connected")
    try:
        while True:
            s.sendall(b"z" * 1000)
            time.sleep(0.05)
    except OSError as e:
        tell(type(e).__name__)
'''


@pytest.fixture
def pair(mesh):
    server = mesh.run("server", ["python3", mesh.python(SERVER), "6379", "8080"], ports=["6379", "8080"], env=SHORT)
    client = mesh.run("client", ["sleep", "100000"], env=SHORT)
    source = mesh.python(CLIENT)

    def ask(what, port=6379, rest=0.0):
        done = client.exec("python3", source, what, "server", str(port), str(rest), timeout=90)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    ask.client, ask.server, ask.source = client, server, source
    return ask


def heard(server):
    return [json.loads(line) for line in server.output().splitlines() if line.startswith("[")]


@pytest.mark.parametrize("rest", [0.0, 0.5], ids=["at once", "later"])
def test_reset_of_the_client(pair, rest):
    pair("reset", rest=rest)
    wait_for(lambda: heard(pair.server), "the server heard of the end")
    n, end = heard(pair.server)[0]
    assert end == "ConnectionResetError"
    # A reset overtakes what its own machine had not sent yet; what was there is passed on.
    assert n == 100000 or rest == 0.0


def test_reset_of_the_server(pair):
    n, end, _ = pair("be-reset")[0]
    assert end == "ConnectionResetError" and n <= 100000


def test_half_close(pair):
    assert pair("half") == [["100000 end", "end"]]


@pytest.mark.parametrize("port", [6379, 8080], ids=["opaque", "http1"])
def test_a_reader_may_rest(pair, port):
    got = pair("rest", port=port, rest=REST)[0]
    assert got == [MUCH, "end", hashlib.sha256(bytes(range(256)) * (MUCH // 256)).hexdigest()]


def test_a_machine_that_is_gone(pair):
    p = pair.client.popen("python3", pair.source, "pour", "server", "6379", "0", stdout=subprocess.PIPE, text=True)
    try:
        assert json.loads(p.stdout.readline()) == ["connected"]
        subprocess.run(["ip", "-n", pair.server.netns, "link", "set", "eth0", "down"], check=True)
        assert json.loads(p.stdout.readline())[0] in ("ConnectionResetError", "BrokenPipeError")
        assert p.wait(10) == 0
    finally:
        if p.poll() is None:
            p.kill()
            p.wait()
