"""What is tried again, and what is not: whether a request reached the application decides, then the route, an
Idempotency-Key, the limit, the deadline and the budget. The application writes down every request that it got."""
import hashlib
import json
import os
import signal
import subprocess
import time

import pytest

from meshes import AT_ONCE, SLOW, is_alive, wait_for
from traffic import PATIENT, kill, metrics, settled, total

pytestmark = pytest.mark.asan

# Reads a request whole, writes it down, and does with the first N of an id what the path says: /ROUTE/ACTION-N. Ports are
# arguments; with "later" it listens only after SIGUSR1.
APP = r'''
import collections, hashlib, json, signal, socket, struct, sys, threading, time
seen, lock = collections.Counter(), threading.Lock()

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

def request(s, f):
    line = f.readline()
    if not line:
        return False
    method, path, _ = line.decode().split()
    head = {}
    while True:
        h = f.readline().decode().strip()
        if not h:
            break
        k, v = h.split(":", 1)
        head[k.lower()] = v.strip()
    body = read_body(f, head)
    action, _, times = path.rsplit("/", 1)[1].partition("-")
    who = head.get("x-id", "")
    with lock:
        seen[who] += 1
        n = seen[who]
        print(json.dumps([who, method, len(body), hashlib.sha256(body).hexdigest(), time.monotonic(),
                          sorted(h for h in head if h.startswith(("weft-", "l5d-")) and h != "l5d-client-id")]), flush=True)
    if times and n <= int(times):
        if action == "reset":
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if action == "half":
            s.sendall(b"HTTP/1.1 200 OK\r\nContent-Le")
        if action == "hang":
            time.sleep(3)
        if action.isdigit():
            s.sendall(b"HTTP/1.1 %s Told\r\nContent-Length: 4\r\n\r\ntold" % action.encode())
            return True
        return False
    s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\nok\n")
    return True

def serve(s):
    f = s.makefile("rb")
    try:
        while request(s, f):
            pass
    except OSError:
        pass
    f.close()
    s.close()

def listen(port):
    l = socket.create_server(("", port), backlog=64)
    while True:
        threading.Thread(target=serve, args=(l.accept()[0],), daemon=True).start()

signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
print(json.dumps("waits"), flush=True)
if "later" in sys.argv:
    signal.sigwait([signal.SIGUSR1])
for port in [int(a) for a in sys.argv[1:] if a.isdigit()]:
    threading.Thread(target=listen, args=(port,)).start()
print(json.dumps("ready"), flush=True)
'''


def route(name, service, port, annotations="", rule=""):
    return """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: %s
  annotations: {%s}
spec:
  parentRefs: [{kind: Service, group: core, name: %s, port: %d}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /%s}}]
    backendRefs: [{kind: Service, name: %s, port: %d}]
    %s
---""" % (name, annotations, service, port, name, service, port, rule)


def retry(http, limit, more=""):
    return 'retry.linkerd.io/http: "%s", retry.linkerd.io/limit: "%d"%s' % (http, limit, more)


ROUTES = "".join([
    route("plain", "shop", 8080),
    route("on503", "shop", 8080, retry("503", 2)),
    route("gateway", "shop", 8080, retry("gateway-error", 2)),
    route("slowly", "shop", 8080, rule="retry: {codes: [503], attempts: 8, backoff: 400ms}"),
    route("deadline", "shop", 8080, retry("503", 200), "timeouts: {request: 400ms}"),
    route("late", "shop", 8080, rule="timeouts: {backendRequest: 200ms}"),
    route("pertry", "shop", 8080, retry("503", 2, ', retry.linkerd.io/timeout: 200ms')),
    route("budget", "shop", 8081, retry("503", 5, ', retry.weft.io/budget-ratio: "0.001", '
                                        'retry.weft.io/budget-min-per-second: "1", retry.weft.io/budget-ttl: 2s')),
    route("patient", "tardy", 8080, retry("503", 255)),
])
REASONS = ("DELIVERED", "NOT_RETRYABLE", "LIMIT", "DEADLINE", "BUDGET", "TOO_LARGE", "NO_VERDICT")


class Shop:
    def __init__(self, mesh):
        self.mesh, self.ids = mesh, 0
        mesh.env.update(PATIENT)
        mesh.env["WEFT_REPLAY_SPILL"] = "4Mi"  # a quarter for one body
        self.program = mesh.python(APP)
        self.shop = self.run("shop", ["8080/http1", "8081/http1"], "8080", "8081")
        self.tardy = self.run("tardy", ["8080/http1"], "8080", "later")
        self.client = mesh.client()
        mesh.apply(ROUTES)
        self.told = {r: 0 for r in REASONS}
        assert self.post("/plain/ok").status == 200

    def run(self, name, ports, *args):
        app = self.mesh.run(name, ["/usr/bin/python3", self.program, *args], ports,
                            env=AT_ONCE if "later" in args else None)
        wait_for(lambda: '"%s"' % ("waits" if "later" in args else "ready") in app.output(), name + " runs")
        wait_for(lambda: " %s\n" % name in open(os.path.join(self.mesh.state_dir, "hosts")).read(), name + "'s name")
        return app

    def new_id(self):
        self.ids += 1
        return "id%d" % self.ids

    def ask(self, method, path, *args, host="shop:8080", key=False):
        self.last = self.new_id()
        return self.client.http("http://%s%s" % (host, path), "-X", method, "-H", "X-Id: " + self.last, "-H", "Expect:",
                                *(["-H", "Idempotency-Key: " + self.last] if key else []), *args)

    def get(self, path, *args, **kw):
        return self.ask("GET", path, *args, **kw)

    def post(self, path, *args, **kw):
        return self.ask("POST", path, *(args or ("--data-binary", "a body")), **kw)

    def got(self, app=None, ident=None):
        """[method, length, checksum, at, fields of the mesh] of each time that the application got the last request."""
        lines = [json.loads(x) for x in (app or self.shop).output().split("\n")[:-1]]
        return [x[1:] for x in lines if isinstance(x, list) and x[0] == (ident or self.last)]

    def refused(self):
        series = metrics(self.client)
        return {r: total(series, "weft_retry_refused_total", reason=r) for r in REASONS}

    def expect_refused(self, **more):
        """What was refused since the last time, by reason: exactly this."""
        want = {r: n + more.get(r, 0) for r, n in self.told.items()}
        wait_for(lambda: all(self.refused()[r] >= n for r, n in want.items()), "refused: %s" % more, 5)
        assert self.refused() == want, (self.refused(), want)
        self.told = want


@pytest.fixture(scope="module")
def shop(shared_mesh):
    return Shop(shared_mesh)


@pytest.fixture
def body(shared_mesh):
    def make(size):
        path = os.path.join(shared_mesh.dir, "body")
        with open(path, "wb") as f:
            data = os.urandom(size)
            f.write(data)
        os.chmod(path, 0o644)
        return path, hashlib.sha256(data).hexdigest()
    return make


def code(answer):
    return answer.headers.get("proxy-status", "").partition('details="')[2][:5]


# ---- it never reached the application ----

def test_nobody_listens_at_first(shop, body):
    """The POST waits in retries until somebody listens, and arrives whole and once."""
    path, checksum = body(100000)
    ident = shop.new_id()
    asking = shop.client.popen("curl", "-sS", "--max-time", "60", "-X", "POST", "-H", "X-Id: " + ident, "--data-binary",
                               "@" + path, "http://tardy:8080/patient/ok", stdout=subprocess.PIPE)
    wait_for(lambda: total(metrics(shop.client), "outbound_http_route_retry_requests_total", parent_name="tardy") > 0,
             "attempts")
    os.kill(shop.tardy.pid, signal.SIGUSR1)
    out, _ = asking.communicate(timeout=60)
    assert out == b"ok\n"
    assert [(m, n, c, fields) for m, n, c, _, fields in shop.got(shop.tardy, ident)] == [("POST", 100000, checksum, [])]
    wait_for(lambda: total(metrics(shop.client), "outbound_http_route_retry_successes_total", parent_name="tardy") == 1,
             "one success thanks to it")
    assert shop.refused() == shop.told


def test_nobody_listens_at_all(shop):
    """Without a route: three attempts of what was not delivered, whatever the method."""
    before = total(metrics(shop.client), "request_total", direction="outbound", dst_service="nobody")
    app = shop.mesh.run("nobody", ["sleep", "1000"], ["8080/http1"], env=AT_ONCE)
    try:
        wait_for(lambda: " nobody\n" in open(os.path.join(shop.mesh.state_dir, "hosts")).read(), "its name")
        answer = shop.post("/ok", host="nobody:8080")
        assert answer.status == 502 and code(answer) == "W2003", answer
        assert "weft-delivered" not in answer.headers
        shop.expect_refused(LIMIT=1)
        assert total(metrics(shop.client), "request_total", direction="outbound", dst_service="nobody") == before + 3
    finally:
        app.stop()


def test_the_servers_proxy_was_killed_between(shop):
    for _ in range(3):
        kill(shop.shop, "weft-proxy.0")
        assert shop.post("/plain/ok").status == 200
        assert len(shop.got()) == 1
    assert shop.refused() == shop.told


def test_an_endpoint_is_gone(shop):
    """One of two dies without a word: every POST that comes to it is sent to the other."""
    pair = [shop.run("pair", ["8080/http1"], "8080") for _ in range(2)]
    def both_get_some():
        shop.post("/ok", host="pair:8080")
        return all(len(app.output().split("\n")) > 3 for app in pair)
    wait_for(both_get_some, "both get some")
    pids = [row["pid"] for row in pair[0].status().values()]
    pair[0].process.kill()
    pair[0].process.wait()
    # What is under way when its proxy dies may have been delivered; this is about what comes after.
    wait_for(lambda: not any(is_alive(pid) for pid in pids), "the end of its pod")
    idents = []
    for _ in range(15):
        assert shop.post("/ok", host="pair:8080").status == 200
        idents.append(shop.last)
    for ident in idents:
        assert len(shop.got(pair[0], ident) + shop.got(pair[1], ident)) == 1
    assert shop.refused() == shop.told
    pair[1].stop()


# ---- it reached it ----

@pytest.mark.parametrize("action", ["close", "reset", "half"])
def test_a_post_that_was_read(shop, action):
    """Nobody but the application knows that it was read: on a connection that an earlier request had left (at most 3 s ago)
    an end without a byte is W2010, on a fresh one W2004. It counts as delivered in both cases."""
    answer = shop.post("/plain/%s-1" % action)
    codes = ("W2004", "W2006") if action == "half" else ("W2004", "W2006", "W2010")
    assert answer.status == 502 and code(answer) in codes, answer
    assert len(shop.got()) == 1
    shop.expect_refused(DELIVERED=1)
    assert shop.post("/plain/%s-1" % action, key=True).status == 200
    assert len(shop.got()) == 2 and all(not g[4] for g in shop.got())
    assert shop.post("/gateway/%s-1" % action).status == 200, "the route allows it: 502"
    assert len(shop.got()) == 2
    answer = shop.post("/on503/%s-1" % action)
    assert answer.status == 502, "the route allows something else"
    assert len(shop.got()) == 1
    shop.expect_refused(DELIVERED=1)
    assert shop.get("/plain/%s-1" % action).status == 200, "a GET may be repeated"
    assert len(shop.got()) == 2


def test_an_answer_of_the_application(shop):
    """A status is retried only where the route says so, an Idempotency-Key makes no failure of it."""
    for method in ("GET", "POST"):
        for path, key, status, times in (("/plain/503-1", False, 503, 1), ("/plain/503-1", True, 503, 1),
                                         ("/on503/503-1", False, 200, 2), ("/on503/500-1", True, 500, 1),
                                         ("/gateway/502-1", False, 200, 2), ("/gateway/504-1", False, 200, 2),
                                         ("/gateway/500-1", False, 500, 1)):
            answer = shop.ask(method, path, key=key)
            assert (answer.status, len(shop.got())) == (status, times), (method, path, answer)
            assert answer.body == ("ok\n" if status == 200 else "told")
    assert shop.refused() == shop.told


def requests_to_shop(shop):
    return total(metrics(shop.client), "request_total", direction="outbound", dst_service="shop", dst_port="8080")


def test_a_killed_proxy_of_the_server_with_requests_in_it(shop):
    """Their bytes had left: what may be repeated is, the others are told that nobody knows."""
    shop.get("/plain/ok")
    pid = shop.shop.status()["weft-proxy.0"]["pid"]
    sent = settled(lambda: requests_to_shop(shop))
    os.kill(pid, signal.SIGSTOP)
    idents, asking = [], []
    for method, key in (("GET", False), ("POST", True), ("POST", False)):
        idents.append(shop.new_id())
        asking.append(shop.client.popen(
            "curl", "-sS", "--max-time", "30", "-o", "/dev/null", "-w", "%{http_code}", "-X", method, "-H", "X-Id: " + idents[-1],
            *(["-H", "Idempotency-Key: x"] if key else []), "http://shop:8080/plain/ok", stdout=subprocess.PIPE))
    wait_for(lambda: requests_to_shop(shop) == sent + 3, "all three are on their way", 8)
    os.kill(pid, signal.SIGKILL)
    assert [p.communicate(timeout=30)[0] for p in asking] == [b"200", b"200", b"502"]
    assert [len(shop.got(ident=i)) for i in idents] == [1, 1, 0]
    shop.expect_refused(DELIVERED=1)


# ---- limit, backoff, deadline, budget ----

def test_the_limit(shop):
    answer = shop.get("/on503/503-9")
    assert answer.status == 503 and answer.body == "told", "the last answer of the application, as it came"
    assert len(shop.got()) == 3 and all(not g[4] for g in shop.got())
    shop.expect_refused(LIMIT=1)
    assert total(metrics(shop.client), "outbound_http_route_retry_limit_exceeded_total", route_name="on503") == 1
    at = [g[3] for g in shop.got()]
    assert at[1] - at[0] < (0.025 + 0.1) * SLOW and at[2] - at[1] < (0.05 + 0.1) * SLOW, "the backoff's upper ends"


def test_the_backoff(shop):
    """Eight waits of up to 400 ms, each random: their sum below 0.2 s has a chance of one in ten million."""
    begun = time.monotonic()
    assert shop.get("/slowly/503-8").status == 200
    assert len(shop.got()) == 9
    assert 0.2 < time.monotonic() - begun < (8 * 0.4 + 1.0) * SLOW


def test_the_deadline(shop):
    begun = time.monotonic()
    answer = shop.get("/deadline/503-1000")
    took = time.monotonic() - begun
    assert took < (0.4 + 0.3) * SLOW, took
    assert len(shop.got()) > 2
    if answer.status == 504:  # it came while an attempt was under way
        assert code(answer) == "W3002", answer
        assert shop.refused() == shop.told
    else:
        assert answer.status == 503 and answer.body == "told", answer
        shop.expect_refused(DEADLINE=1)
    begun = time.monotonic()
    answer = shop.post("/deadline/hang-1", key=True)
    assert answer.status == 504 and code(answer) == "W3002" and 0.4 <= time.monotonic() - begun < 0.7 * SLOW, answer


def test_limits_of_one_attempt(shop):
    """One that is late is made again where the route has a limit for each; a limit without retries is final."""
    answer = shop.get("/pertry/hang-1")
    assert answer.status == 200 and len(shop.got()) == 2
    answer = shop.post("/pertry/hang-2")
    assert answer.status == 200 and len(shop.got()) == 3
    assert shop.refused() == shop.told
    answer = shop.get("/late/hang-1")
    assert answer.status == 504 and code(answer) == "W3003" and len(shop.got()) == 1, answer
    shop.expect_refused(NOT_RETRYABLE=1)


def test_the_budget(shop):
    """One retry a second over two seconds; requests give next to nothing."""
    statuses = [shop.get("/budget/503-1", host="shop:8081").status for _ in range(8)]
    refused = statuses.count(503)
    assert statuses[:2] == [200, 200] and refused >= 1, statuses
    shop.expect_refused(BUDGET=refused)
    assert total(metrics(shop.client), "outbound_http_route_retry_overflow_total", route_name="budget") == refused
    later = []

    def again():
        later.append(shop.get("/budget/503-1", host="shop:8081").status)
        return later[-1] == 200
    wait_for(again, "the budget fills again", 6)
    shop.expect_refused(BUDGET=later.count(503))


def test_no_verdict(shop):
    """weft-retry does not answer: no retry, told so soon; it is back: all is as before."""
    pid = shop.client.status()["weft-retry"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        answer = shop.get("/plain/close-1")
        assert answer.status == 502 and 1 <= time.monotonic() - begun < 1.5 * SLOW, answer
        assert len(shop.got()) == 1
        answer = shop.get("/on503/503-1")
        assert answer.status == 503 and answer.body == "told", "a held answer is passed on"
    finally:
        os.kill(pid, signal.SIGCONT)
    shop.expect_refused(NO_VERDICT=2)
    assert shop.get("/plain/close-1").status == 200


# ---- content ----

@pytest.mark.parametrize("chunked", [False, True], ids=["counted", "chunked"])
@pytest.mark.parametrize("size,is_kept", [(0, True), (1, True), (200000, True), (256 * 1024, True), (256 * 1024 + 1, True),
                                          (1280 * 1024, True), (1280 * 1024 + 1, False), (3000000, False)])
def test_content_is_repeated_whole(shop, body, size, is_kept, chunked):
    """In memory, above that in the memory file, above that not at all."""
    path, checksum = body(size)
    args = ["--data-binary", "@" + path] + (["-H", "Transfer-Encoding: chunked"] if chunked else [])
    answer = shop.post("/plain/close-1", *args, key=True)
    got = shop.got()
    assert all(g[:3] == ["POST", size, checksum] for g in got), got
    if is_kept:
        assert answer.status == 200 and len(got) == 2
        assert shop.refused() == shop.told
    else:
        assert answer.status == 502 and len(got) == 1, "given up, and said so"
        shop.expect_refused(TOO_LARGE=1)


def test_content_of_what_was_not_delivered(shop, body):
    """The same where nobody listens: kept up to the limit, sent again whole."""
    pair = [shop.run("half", ["8080/http1"], "8080"), shop.mesh.run("half", ["sleep", "1000"], ["8080/http1"], env=AT_ONCE)]
    wait_for(lambda: shop.mesh.sql("select count(*) as n from mesh_endpoints where service='half' and ready")[0]["n"] >= 2,
             "both endpoints")
    path, checksum = body(150000)

    def retried():
        return total(metrics(shop.client), "outbound_http_route_retry_requests_total", parent_name="half")
    before = retried()
    for n in range(12):
        answer = shop.post("/ok", "--data-binary", "@" + path, *(["-H", "Transfer-Encoding: chunked"] if n % 2 else []),
                           host="half:8080")
        assert answer.status == 200, answer
        assert [g[:3] for g in shop.got(pair[0])] == [["POST", 150000, checksum]]
    wait_for(lambda: retried() > before, "some came to the one where nobody listens")
    for app in pair:
        app.stop()


def test_nothing_else_was_refused(shop):
    """Runs last: what the tests above have not accounted for would show here."""
    assert settled(shop.refused) == shop.told
    for log in [app.log() for app in (shop.client, shop.shop)] + [shop.mesh.log_tail(1000000)]:
        assert "runtime error" not in log and "Sanitizer" not in log and "missed an edge" not in log, log[-3000:]
