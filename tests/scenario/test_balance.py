"""Which endpoint a request goes to: real proxies, plain servers, and views that the test says."""
import collections
import http.client
import socket
import threading
import time

import pytest

from linked import Link, Linked, rule
from meshes import SLOW, wait_for
from proxies import Server, listener, read_request

pytestmark = pytest.mark.asan

EWMA, LEAST, ROUND, HASH = range(4)
HEADER, COOKIE, SOURCE = 1, 2, 3


def balancing(kind=EWMA, hash_by=0, name="", slow_start_ms=0, zones=False, spill=0, share_cap=0, penalises=False,
              penalty_ms=0):
    return [kind, hash_by, name, slow_start_ms, int(zones), spill, share_cap, penalises, penalty_ms, 0]


def breaker(consecutive=0, min_ms=0, max_ms=0, jitter=0, success=0, window_ms=0, min_requests=0, retry_after=False,
            max_ejected=1000):
    return [consecutive, min_ms, max_ms, jitter, success, window_ms, min_requests, retry_after, max_ejected]


class App:
    """An application: counts its requests and connections; answers what it is told, when it is told."""

    def __init__(self):
        self.status, self.fields, self.delay = 200, b"", 0
        self.requests = self.open = self.most_open = 0
        self.lock = threading.Lock()
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.server = Server(self._serve)
        self.port = self.server.port

    def _serve(self, c, number):
        with self.lock:
            self.open += 1
            self.most_open = max(self.open, self.most_open)
        try:
            while True:
                read_request(c)
                with self.lock:
                    self.requests += 1
                assert self.may_answer.wait(10)
                if self.delay:
                    time.sleep(self.delay)
                c.sendall(b"HTTP/1.1 %d X\r\n%sContent-Length: 2\r\nX-Port: %d\r\n\r\nok"
                          % (self.status, self.fields, self.port))
        except (AssertionError, OSError):
            pass
        finally:
            with self.lock:
                self.open -= 1


class Service:
    """Applications behind one service, and a proxy that was told of them."""

    def __init__(self, n, balance=None, breaks=None, weights=None, zones=None, ready_ms=None, connections_max=0,
                 waiting_max=0, **env):
        self.apps = [App() for _ in range(n)]
        self.weights, self.zones, self.ready_ms = weights or [10000] * n, zones or [""] * n, ready_ms or [0] * n
        self.balance, self.breaks, self.max = balance, breaks, (connections_max, waiting_max)
        self.link = Link(view=self.view(range(n)))
        self.proxy = Linked(self.link, target=8080, WEFT_LOG="debug", **env)

    def view(self, which):
        endpoints = [["127.0.0.1", self.apps[i].port, "", 0, "default/p%d" % i, self.zones[i], self.weights[i],
                      self.ready_ms[i]] for i in which]
        one = ["default", "web", 80, 0, 0, endpoints, [self.balance] if self.balance else [],
               [self.breaks] if self.breaks else [], *self.max]
        return [1, 1, "default", "web", 80, 0, [rule()], [one], False, False, [], []]

    def change(self, which):
        self.link.set_view(self.view(which))

    def client(self, timeout=20):
        return http.client.HTTPConnection("127.0.0.1", self.proxy.port, timeout=timeout)

    def ask(self, n=1, client=None, **headers):
        """How often each application answered; its statuses."""
        c = client or self.client()
        hits, self.statuses = collections.Counter(), collections.Counter()
        for _ in range(n):
            c.request("GET", "/", headers=headers)
            r = c.getresponse()
            r.read()
            self.statuses[r.status] += 1
            self.said = r.getheader("proxy-status") or ""
            if r.getheader("x-port"):
                hits[next(i for i, a in enumerate(self.apps) if str(a.port) == r.getheader("x-port"))] += 1
            if r.getheader("connection") == "close":
                c.close()
        if client is None:
            c.close()
        return [hits[i] for i in range(len(self.apps))]

    def close(self):
        self.proxy.stop()
        self.link.close()
        for a in self.apps:
            a.may_answer.set()
            a.server.close()


@pytest.fixture
def serve():
    made = []

    def make(*args, **kw):
        made.append(Service(*args, **kw))
        return made[-1]
    yield make
    for s in made:
        s.close()


def test_round_robin_is_even(serve):
    assert serve(5, balancing(ROUND)).ask(100) == [20] * 5


def test_round_robin_by_weight(serve):
    hits = serve(2, balancing(ROUND), weights=[10000, 30000]).ask(100)
    assert 24 <= hits[0] <= 26, hits


@pytest.mark.parametrize("kind", [EWMA, LEAST])
def test_everybody_gets_some(serve, kind):
    hits = serve(3, balancing(kind)).ask(300)
    assert sum(hits) == 300 and min(hits) > 0, hits


def owners(s, **named):
    return {k: s.ask(1, **{n: v % k for n, v in named.items()}).index(1) for k in range(60)}


def test_hash_by_header_sticks_and_moves_little(serve):
    s = serve(4, balancing(HASH, HEADER, "x-user"))
    before = owners(s, **{"X-User": "user-%d"})
    assert owners(s, **{"X-User": "user-%d"}) == before
    assert set(before.values()) == {0, 1, 2, 3}
    s.change([0, 1, 3])
    wait_for(lambda: 2 not in owners(s, **{"X-User": "user-%d"}).values(), "the new view")
    after = owners(s, **{"X-User": "user-%d"})
    assert all(after[k] == before[k] for k in before if before[k] != 2)
    s.change([3, 2, 1, 0])
    wait_for(lambda: owners(s, **{"X-User": "user-%d"}) == before, "the old owners")


def test_hash_by_cookie(serve):
    s = serve(4, balancing(HASH, COOKIE, "sid"))
    one = owners(s, Cookie="a=1; sid=s%d; b=2")
    assert owners(s, Cookie="sid=s%d") == one and len(set(one.values())) == 4
    assert sum(1 for n in s.ask(200, Cookie="xsid=1") if n > 0) > 1  # no such cookie: as without a hash


def test_hash_by_source(serve):
    s = serve(4, balancing(HASH, SOURCE))
    assert sorted(s.ask(40)) == [0, 0, 0, 40]


def test_own_zone_first_until_it_is_slow(serve):
    s = serve(4, balancing(zones=True), zones=["a", "b", "a", "b"], WEFT_ZONE="a")
    hits = s.ask(100)
    assert hits[1] + hits[3] == 0 and hits[0] > 0 and hits[2] > 0
    for i in (0, 2):
        s.apps[i].delay = 0.15
    hits = s.ask(60)
    assert hits[1] + hits[3] > 40, hits
    assert hits[1] > 0 and hits[3] > 0


def test_zones_of_others_when_ours_is_gone(serve):
    s = serve(2, balancing(zones=True), zones=["a", "b"], WEFT_ZONE="a")
    assert s.ask(20) == [20, 0]
    s.change([1])
    wait_for(lambda: s.ask(1) == [0, 1], "the new view")


def test_share_cap(serve):
    """The only pod of our zone is not sent everything."""
    s = serve(4, balancing(zones=True, share_cap=2000), zones=["a", "b", "b", "b"], WEFT_ZONE="a")
    hits = s.ask(400)
    assert 150 <= hits[0] <= 203, hits


def test_slow_start(serve):
    now = int(time.time() * 1000)
    s = serve(4, balancing(ROUND, slow_start_ms=600000), ready_ms=[1, 1, 1, now])
    hits = s.ask(310)
    assert 5 <= hits[3] <= 20, hits


def test_busy_ones_get_less(serve):
    """Least requests: who holds requests back gets no more while others are idle."""
    s = serve(2, balancing(LEAST))
    s.apps[0].may_answer.clear()
    threads = [threading.Thread(target=s.ask) for _ in range(2)]
    for t in threads:
        t.start()
    wait_for(lambda: s.apps[0].requests + s.apps[1].requests == 2, "both requests")
    for _ in range(20):
        if s.apps[0].requests == 0:  # both went to the other one
            break
        assert s.ask(1) == [0, 1]
    s.apps[0].may_answer.set()
    for t in threads:
        t.join()


def test_penalty_by_retry_after(serve):
    s = serve(2, balancing(penalises=True))
    s.apps[0].status, s.apps[0].fields = 503, b"Retry-After: 120\r\n"
    hits = s.ask(100)
    assert hits[0] <= 1 and hits[1] >= 99, hits


def test_a_change_of_settings_closes_nothing(serve):
    s = serve(3, balancing(ROUND))
    c = s.client()
    assert s.ask(30, c) == [10] * 3
    s.balance = balancing(HASH, SOURCE)
    s.change(range(3))
    wait_for(lambda: sorted(s.ask(6, c)) == [0, 0, 6], "the new settings")
    assert sum(a.server.accepted for a in s.apps) <= 4 and all(a.open >= 1 for a in s.apps)


# ---- limits ----

def test_connections_of_a_service_are_limited(serve):
    s = serve(2, connections_max=3)
    for a in s.apps:
        a.delay = 0.02
    threads = [threading.Thread(target=s.ask, args=(5, s.client())) for _ in range(10)]
    seen = []
    for t in threads:
        t.start()
    while any(t.is_alive() for t in threads):
        seen.append(sum(a.open for a in s.apps))
        time.sleep(0.002)
    assert sum(a.requests for a in s.apps) == 50
    assert max(seen) <= 3, max(seen)
    # And none of the count is lost: three at once still work.
    assert sum(s.ask(3)) == 3


def test_who_waits_too_long_for_a_connection_is_told(serve):
    s = serve(1, connections_max=1, WEFT_FAILFAST_TIMEOUT="300ms")
    s.apps[0].may_answer.clear()
    t = threading.Thread(target=s.ask, args=(1, s.client()))
    t.start()
    wait_for(lambda: s.apps[0].requests == 1, "the first request")
    c = s.client()
    c.request("GET", "/")
    r = c.getresponse()
    assert r.status == 503 and "connection_limit_reached" in r.getheader("proxy-status")
    assert "max-connections 1 of default/web:80" in r.getheader("proxy-status")
    s.apps[0].may_answer.set()
    t.join()
    assert s.ask(5) == [5]


def opaque(s):
    """A connection that is no HTTP to the service."""
    c = socket.create_connection(("127.0.0.1", s.proxy.port), timeout=20)
    c.sendall(b"\x00 not HTTP\r\n\r\n")
    return c


def read_all(c):
    try:
        return c.recv(1000)
    except ConnectionResetError:
        return b""


def test_opaque_connections_by_source(serve):
    s = serve(4, balancing(HASH, SOURCE))
    for _ in range(12):
        with opaque(s) as c:
            assert read_all(c).startswith(b"HTTP/1.1 200")
    assert sorted(a.server.accepted for a in s.apps) == [0, 0, 0, 12]


def test_opaque_connections_wait_for_a_place(serve):
    s = serve(2, connections_max=2, WEFT_FAILFAST_TIMEOUT="30s")
    held = [opaque(s) for _ in range(2)]
    for c in held:
        assert read_all(c).startswith(b"HTTP/1.1 200")
    third = opaque(s)
    third.settimeout(0.3)
    with pytest.raises(TimeoutError):
        third.recv(1)
    assert sum(a.server.accepted for a in s.apps) == 2
    held.pop().close()
    third.settimeout(20)
    assert read_all(third).startswith(b"HTTP/1.1 200")
    for c in [*held, third]:
        c.close()


def test_opaque_connections_that_wait_too_long_are_refused(serve):
    s = serve(1, connections_max=1, waiting_max=1, WEFT_FAILFAST_TIMEOUT="400ms")
    with opaque(s) as held:
        assert read_all(held).startswith(b"HTTP/1.1 200")
        with opaque(s) as c:
            assert read_all(c) == b""
        # One may wait; who comes then is refused at once.
        with opaque(s) as c, opaque(s) as d:
            assert read_all(c) == read_all(d) == b""
        assert s.apps[0].server.accepted == 1
    wait_for(lambda: s.apps[0].open == 0, "the end of the first")
    assert s.ask(3) == [3]


def test_nothing_is_dialled_early_over_the_limit(serve):
    """A client that says nothing has its server dialled meanwhile: not when the service has no place for it."""
    s = serve(1, connections_max=1)
    with opaque(s) as held:
        assert read_all(held).startswith(b"HTTP/1.1 200")
        with socket.create_connection(("127.0.0.1", s.proxy.port), timeout=0.5) as silent:
            with pytest.raises(TimeoutError):
                silent.recv(1)
            assert s.apps[0].server.accepted == 1
    assert s.ask(3) == [3]


def test_dials_that_fail_are_not_counted_for_ever(serve):
    s = serve(2, connections_max=1, WEFT_FAILFAST_TIMEOUT="300ms")
    ports = [a.port for a in s.apps]
    for a in s.apps:
        nobody = listener()
        a.port = nobody.getsockname()[1]
        nobody.close()
    s.change([0, 1])
    for _ in range(5):
        s.ask(1)
        assert s.statuses[504] + s.statuses[502] + s.statuses[200] == 1, s.statuses
    wait_for(lambda: s.ask(1) and s.statuses[200] == 0, "the new view")
    for a, port in zip(s.apps, ports):
        a.port = port
    s.change([0, 1])
    wait_for(lambda: sum(s.ask(1)) == 1, "the applications again")
    assert sum(s.ask(20)) == 20
