"""Several proxies of one pod: connections are divided evenly, counts add up, one that is killed costs its own
connections only, and draining empties all of them."""
import os
import signal

import pytest

from meshes import wait_for
from traffic import metrics, settled, total

SERVER = """
import http.server, sys
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(("", 8080), H).serve_forever()
"""

# Opens so many connections, one request on each, and keeps them; then a request on each for every line it reads.
HOLDER = """
import http.client, sys
n = int(sys.argv[1])
held = [http.client.HTTPConnection("web", 8080, timeout=20) for _ in range(n)]
def ask(c):
    try:
        c.request("GET", "/")
        r = c.getresponse()
        r.read()
        return r.status == 200
    except OSError:
        c.close()
        return False
    except http.client.HTTPException:
        c.close()
        return False
print(sum(map(ask, held)), flush=True)
for line in sys.stdin:
    print(sum(map(ask, held)), flush=True)
"""


def held_by(pid, port):
    """Connections to this local port that a process has."""
    inodes = set()
    for fd in os.listdir("/proc/%d/fd" % pid):
        try:
            target = os.readlink("/proc/%d/fd/%s" % (pid, fd))
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    n = 0
    for family in ("tcp", "tcp6"):
        with open("/proc/%d/net/%s" % (pid, family)) as f:
            for line in f.read().splitlines()[1:]:
                w = line.split()
                if w[3] == "01" and int(w[1].rsplit(":", 1)[1], 16) == port and w[9] in inodes:
                    n += 1
    return n


def proxies(app):
    return {n: r["pid"] for n, r in app.status().items() if n.startswith("weft-proxy.")}


def shares(app, port=4140):
    return sorted(held_by(pid, port) for pid in proxies(app).values())


class Held:
    """Connections of the client that stay open."""

    def __init__(self, client, program, n):
        self.process = client.popen("python3", program, str(n), stdin=-1, stdout=-1, text=True)
        self.n = n
        assert int(self.process.stdout.readline()) == n

    def ask(self):
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def done(self):
        self.process.stdin.close()
        self.process.wait(20)


def start(mesh, workers):
    web = mesh.run("web", ["python3", mesh.python(SERVER)], ports=["8080/http1"], options=["--workers", workers])
    client = mesh.run("client", ["sleep", "100000"], options=["--workers", workers])
    wait_for(lambda: client.http("http://web:8080/").status == 200, "web serves")
    return web, client


def sent(client):
    return total(metrics(client), "request_total", direction="outbound", dst_service="web")


def served(web):
    return total(metrics(web), "request_total", direction="inbound")


@pytest.mark.parametrize("workers", [2, 4])
def test_workers(mesh, workers):
    web, client = start(mesh, str(workers))
    assert len(proxies(web)) == len(proxies(client)) == workers
    program = mesh.python(HOLDER)
    base_out, base_in = settled(lambda: sent(client)), settled(lambda: served(web))

    # Few connections are divided to the last one, many to within an eighth of the least.
    few = Held(client, program, 8)
    got = shares(client)
    assert sum(got) == 8 and got[-1] - got[0] <= 1, got
    few.done()
    wait_for(lambda: sum(shares(client)) == 0, "all closed")
    many = Held(client, program, 64)
    got = shares(client)
    assert sum(got) == 64 and got[-1] - got[0] <= 1 + got[0] // 8, got
    assert many.ask() == 64

    # Every request is counted once, on both sides, over all workers together.
    wait_for(lambda: sent(client) - base_out == 8 + 128, "counted by the client's side")
    wait_for(lambda: served(web) - base_in == 8 + 128, "counted by the server's side")

    # One killed worker of the client's side: its own connections break, and nobody else's.
    name, victim = sorted(proxies(client).items())[0]
    lost = held_by(victim, 4140)
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: client.status()[name]["state"] == "ready" and client.status()[name]["pid"] != victim, "restarted")
    assert many.ask() == 64 - lost
    assert many.ask() == 64  # those that broke are opened again
    got = shares(client)
    assert sum(got) == 64 and got[-1] - got[0] <= 2 + got[0] // 8, got

    # Nothing that was counted is lost with it.
    least = 8 + 128 + 2 * 64 - lost
    wait_for(lambda: least <= sent(client) - base_out <= least + lost, "counts go on")

    # Draining ends all of them, and everybody's requests get their answer.
    assert client.http("http://web:8080/").status == 200
    pids = list(proxies(web).values())
    assert web.stop() in (0, 143)  # as the program ended
    assert not [p for p in pids if os.path.exists("/proc/%d" % p)]
    many.done()


def test_auto(mesh):
    """auto is what the machine (or the quota of the control group) has, told by the supervisor."""
    app = mesh.run("web", ["python3", mesh.python(SERVER)], ports=["8080/http1"], options=["--workers", "auto"])
    wait_for(lambda: len(proxies(app)) >= 1, "proxies")
    assert 1 <= len(proxies(app)) <= len(os.sched_getaffinity(0))
