"""weft-retry as it runs: the test is the proxies and telemetry. Rules are tested in tests/unit/retry."""
import os
import signal
import subprocess
import time

import msgpack
import pytest
import zmq

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.path.join(os.environ.get("WEFT_BUILD", os.path.join(ROOT, "build")), "bin")

ASK, SETTLE, CANCEL, GO, STOP, SERIES, SERIES_ALL = 0x0201, 0x0202, 0x0203, 0x0204, 0x0205, 0x0601, 0x0602
NO, YES, UNKNOWN = 0, 1, 2
FOREVER = 0xffffffff


class Retry:
    def __init__(self, path):
        self.path = str(path)
        os.chmod(self.path, 0o700)
        self.ctx = zmq.Context()
        self.telemetry = self.socket(zmq.ROUTER)
        self.telemetry.bind(f"ipc://{self.path}/telemetry.sock")
        self.log = open(os.path.join(self.path, "log"), "wb")
        self.start()

    def socket(self, kind):
        s = self.ctx.socket(kind)
        s.linger = 0
        return s

    def start(self):
        env = {"PATH": "/usr/bin:/bin", "WEFT_RUN_DIR": self.path, "WEFT_INCARNATION": "99",
               **{k: v for k, v in os.environ.items() if k.endswith("SAN_OPTIONS")}}
        self.process = subprocess.Popen([os.path.join(BIN, "weft-retry")], env=env, stderr=self.log, stdout=self.log)

    def proxy(self):
        s = self.socket(zmq.DEALER)
        s.connect(f"ipc://{self.path}/retry.sock")
        return s

    def done(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(10)
        self.ctx.destroy(linger=0)
        self.log.close()
        assert code == 0
        with open(os.path.join(self.path, "log"), errors="replace") as f:
            log = f.read()
        assert "missed an edge" not in log and "runtime error" not in log and "AddressSanitizer" not in log


def ask(s, ident, attempt=1, delivered=NO, replayable=False, left=FOREVER, policy=(), service="default/web:80",
        cause=0):
    s.send(msgpack.packb([ASK, 2, ident, service, "", attempt, delivered, cause, 0, replayable, left, list(policy)]))


def answer(s, seconds=5):
    assert s.poll(seconds * 1000), "no answer"
    return msgpack.unpackb(s.recv())


@pytest.fixture
def retry(tmp_path):
    r = Retry(tmp_path)
    yield r
    r.done()


@pytest.mark.asan
def test_verdicts_reach_the_one_who_asked(retry):
    one, two = retry.proxy(), retry.proxy()
    ask(one, 1)
    ask(two, 2, delivered=YES)
    ask(one, 3, attempt=3)
    assert answer(two)[:4] == [STOP, 1, 2, "NOT_RETRYABLE"]
    code, _, ident, wait = answer(one)
    assert (code, ident) == (GO, 1) and 0 <= wait <= 25
    assert answer(one) == [STOP, 1, 3, "LIMIT"]


def test_requests_feed_the_budget(retry):
    s = retry.proxy()
    # limit, statuses, grpc, per try, backoff min, max, budget: 50 %, 1 per second, 1 s; body; hedges
    policy = [[2, [], 0, 0, 1, 1, 500, 1, 60000, 0, 0, 0]]
    for i in range(61):
        ask(s, i, policy=policy)
    got = [answer(s) for _ in range(61)]
    assert [g[0] for g in got] == [GO] * 60 + [STOP] and got[-1][3] == "BUDGET"
    s.send(msgpack.packb([SETTLE, 1, "default/web:80", 10, 8]))
    for i in range(6):
        ask(s, i, policy=policy)
    assert [answer(s)[0] for _ in range(6)] == [GO] * 5 + [STOP]


def test_the_servers_side_has_enough(retry):
    """A hold stops every further attempt of that service for as long as it says, hedges too, and nothing else."""
    one, two = retry.proxy(), retry.proxy()
    one.send(msgpack.packb([SETTLE, 2, "default/web:80", 0, 0, 600]))
    ask(one, 1)
    assert answer(one) == [STOP, 1, 1, "PRESSURE"]
    ask(two, 2)
    assert answer(two) == [STOP, 1, 2, "PRESSURE"], "whichever proxy of the pod asks"
    hedges = [[0, [], 0, 0, 0, 0, 0, 0, 0, 0, 50, 2]]
    ask(two, 3, delivered=UNKNOWN, replayable=True, policy=hedges, cause=6)
    assert answer(two) == [STOP, 1, 3, "PRESSURE"]
    ask(two, 4, service="default/other:80")
    assert answer(two)[:3] == [GO, 1, 4]
    got = STOP
    end = time.monotonic() + 10
    while got == STOP and time.monotonic() < end:
        ask(one, 5)
        got = answer(one)[0]
    assert got == GO, "it ends by itself"
    ask(two, 6, delivered=UNKNOWN, replayable=True, policy=hedges, cause=6)
    assert answer(two) == [GO, 1, 6, 0], "a hedge does not wait"


@pytest.mark.asan
def test_bad_messages_and_a_kill(retry):
    """Bytes that are no question get no answer and do no harm; a killed weft-retry is back with fresh budgets."""
    s = retry.proxy()
    for bad in (b"", b"\xc0", b"\x93\x01garbage", msgpack.packb([ASK, 2]), msgpack.packb([ASK, 2] + ["x"] * 10),
                msgpack.packb([SERIES_ALL, 1, 0]), msgpack.packb([GO, 1, 5, 5]), b"\xdd\xff\xff\xff\xff" * 20):
        s.send(bad)
    s.send_multipart([b"two", b"frames"])
    ask(s, 7)
    assert answer(s)[2] == 7
    retry.process.kill()
    retry.process.wait()
    retry.start()
    end = time.monotonic() + 5
    got = None
    while got is None and time.monotonic() < end:
        ask(s, 8)
        got = answer(s) if s.poll(100) else None
    assert got[:3] == [GO, 1, 8]


def test_its_own_series(retry):
    s = retry.proxy()
    ask(s, 1, service='default/"web":80')
    answer(s)
    assert retry.telemetry.poll(5000)
    me, body = retry.telemetry.recv_multipart()
    code, _, process, incarnation, _, series = msgpack.unpackb(body)
    assert (code, process, incarnation) == (SERIES, "weft-retry", 99)
    assert [(x[2], x[3]) for x in series] == [('service="default/\\"web\\":80",verdict="go"', [[1]])]
    assert not retry.telemetry.poll(2200), "nothing changed, and something was sent"
    retry.telemetry.send_multipart([me, msgpack.packb([SERIES_ALL, 1, 0])])
    assert retry.telemetry.poll(3000)
    assert msgpack.unpackb(retry.telemetry.recv_multipart()[1])[5] == series
