"""Circuit breakers with real proxies: who is taken out, who returns, and what is said when nobody is left."""
import re
import threading
import time

import pytest

from meshes import SLOW, wait_for
from test_balance import ROUND, balancing, breaker, serve  # noqa: F401 (a fixture)

pytestmark = pytest.mark.asan


def told(s, what):
    """[{name: value}] of what the proxy has logged about its breakers."""
    return [dict(re.findall(r"(\w+)=(\S+)", line)) for line in s.proxy.log().splitlines() if "endpoint " + what in line]


def test_failures_in_a_row(serve):  # noqa: F811
    s = serve(3, balancing(ROUND), breaker(consecutive=3, min_ms=60000))
    s.apps[1].status = 500
    hits = s.ask(60)
    assert hits[1] == 3 and s.statuses[500] == 3, hits
    (out,) = told(s, "ejected")
    assert out["reason"] == "CONSECUTIVE" and out["row"] == "3" and out["for_ms"] == "60000"
    assert out["backend"] == "default/web:80" and out["pod"] == "default/p1" and out["ready"] == "2"


def test_success_between_is_no_row_but_may_be_a_rate(serve):  # noqa: F811
    s = serve(1, balancing(ROUND), breaker(success=800, min_requests=10, min_ms=60000), WEFT_FAILFAST_TIMEOUT="200ms")
    for i in range(12):
        s.apps[0].status = 500 if i % 2 else 200
        s.ask(1)
    assert s.apps[0].requests == 10
    assert told(s, "ejected")[0]["reason"] == "SUCCESS_RATE"


def test_429_counts_for_the_rate_only(serve):  # noqa: F811
    s = serve(2, balancing(ROUND), breaker(consecutive=2, min_ms=60000))
    s.apps[0].status = 429
    assert s.ask(40) == [20, 20] and told(s, "ejected") == []


def test_one_probe_and_return(serve):  # noqa: F811
    s = serve(2, balancing(ROUND), breaker(consecutive=2, min_ms=300))
    s.apps[0].status = 500
    s.ask(10)
    assert s.apps[0].requests == 2
    # It is not better: one probe, and out for twice as long.
    wait_for(lambda: s.ask(1) and s.apps[0].requests == 3, "the probe")
    assert wait_for(lambda: len(told(s, "ejected")) == 2, "the second time out")
    assert told(s, "ejected")[1]["reason"] == "PROBE_FAILED" and told(s, "ejected")[1]["for_ms"] == "600"
    # It is better, and slow: while the probe is out, nobody else goes there.
    s.apps[0].status = 200
    s.apps[0].may_answer.clear()
    probe = threading.Thread(target=s.ask, args=(1, s.client()))
    time.sleep(0.7)  # longer than the time out: whoever asks next is the probe
    probe.start()
    wait_for(lambda: s.apps[0].requests == 4, "the probe")
    assert s.ask(10) == [0, 10]
    s.apps[0].may_answer.set()
    probe.join()
    wait_for(lambda: told(s, "returned"), "its return")
    assert s.ask(10) == [5, 5]


def test_floor(serve):  # noqa: F811
    s = serve(2, balancing(ROUND), breaker(consecutive=2, min_ms=60000, max_ejected=500))
    for a in s.apps:
        a.status = 500
    s.ask(40)
    assert len(told(s, "ejected")) == 1
    assert s.statuses[500] == 40  # never 504: one of them is always there


def test_retry_after_is_honoured(serve):  # noqa: F811
    s = serve(2, balancing(ROUND), breaker(consecutive=2, min_ms=100, retry_after=True))
    s.apps[0].status, s.apps[0].fields = 503, b"Retry-After: 77\r\n"
    s.ask(10)
    assert told(s, "ejected")[0]["for_ms"] == "77000"


def test_all_out_is_504_with_the_reason(serve):  # noqa: F811
    s = serve(3, balancing(ROUND), breaker(consecutive=1, min_ms=60000), WEFT_FAILFAST_TIMEOUT="200ms")
    for a in s.apps:
        a.status = 500
    s.ask(3)
    assert s.statuses[500] == 3
    s.ask(1)  # waits for an endpoint
    assert s.statuses[504] == 1 and "destination_unavailable" in s.said and "3 ejected, 0 connecting" in s.said
    begun = time.monotonic()
    s.ask(20)  # is told at once
    assert s.statuses[504] == 20 and "W7002" in s.said
    assert time.monotonic() - begun < 20 * 0.2
    assert sum(a.requests for a in s.apps) == 3


def test_the_queue_is_limited(serve):  # noqa: F811
    s = serve(1, balancing(ROUND), breaker(consecutive=1, min_ms=60000), waiting_max=2, WEFT_FAILFAST_TIMEOUT="3s")
    s.apps[0].status = 500
    s.ask(1)
    clients = [s.client() for _ in range(2)]
    for c in clients:
        c.request("GET", "/")
    wait_for(lambda: s.ask(1) and s.statuses[503] == 1, "a full queue", 2 * SLOW)
    assert "W7001" in s.said and "connection_limit_reached" in s.said and "1 ejected" in s.said
    for c in clients:
        assert c.getresponse().status == 504


def test_who_waits_is_served_by_who_returns(serve):  # noqa: F811
    s = serve(1, balancing(ROUND), breaker(consecutive=1, min_ms=400))
    s.apps[0].status = 500
    s.ask(1)
    s.apps[0].status = 200
    clients = [s.client() for _ in range(5)]
    for c in clients:
        c.request("GET", "/")
    assert [c.getresponse().status for c in clients] == [200] * 5
    assert len(told(s, "returned")) == 1
