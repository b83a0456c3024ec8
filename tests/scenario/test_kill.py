"""Every process but the supervisors is killed with -9 under steady traffic, one after the other. Nobody else's
connections break, requests that can be retried succeed, each is serving again, and no count is lost."""
import os
import statistics
import time

import pytest

from meshes import SLOW, wait_for
from traffic import KEPT, LONG, NEW_ECHOES, PATIENT, Traffic, kill, metrics, pids, settled, total

ALIAS = """
apiVersion: v1
kind: Service
metadata: {name: alias%(n)d}
spec: {ports: [{port: 80, name: http}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: alias%(n)d, labels: {kubernetes.io/service-name: alias%(n)d}}
addressType: IPv4
ports: [{port: 8080, name: http}]
endpoints: [{addresses: [%(ip)s]}]
---
"""


@pytest.fixture(scope="module")
def traffic(shared_mesh):
    t = Traffic(shared_mesh, PATIENT)
    server_ip = t.server.exec("hostname", "-I").stdout.split()[0]
    shared_mesh.apply("".join(ALIAS % {"n": n, "ip": server_ip} for n in range(2)))
    return t


class Table:
    """What was killed, and how long it took: printed at the end."""
    rows, resets, lost_attempts = [], 0, 0

    @classmethod
    def add(cls, where, k, served_at):
        cls.rows.append((where, k.name, k.restart_ms, (served_at - k.at) * 1000))


def answers(app, url, status, contains=""):
    """Asks until the answer is this one; when that was."""
    def ask():
        done = app.exec("curl", "-sS", "--max-time", "5", "-o", "-", "-w", "\n%{http_code}", url)
        return done.returncode == 0 and done.stdout.endswith("\n%d" % status) and contains in done.stdout
    wait_for(ask, "%s answers %d" % (url, status))
    return time.monotonic()


def refused(app, reason):
    return total(metrics(app), "weft_retry_refused_total", reason=reason)


def serves_telemetry(t, app, k):
    return answers(app, "http://127.0.0.1:4191/metrics", 200, "# EOF")


def serves_retry(t, app, k):
    """Nobody listens on 7000: it was not delivered, so it is tried three times, then the limit is reached."""
    if app is t.server:
        return k.ready  # it asks nobody
    before = refused(app, "LIMIT"), refused(app, "NO_VERDICT")
    at = answers(app, "http://server:7000/", 502)
    wait_for(lambda: (refused(app, "LIMIT"), refused(app, "NO_VERDICT")) == (before[0] + 1, before[1]),
             "the verdict LIMIT")
    return at


def serves_link(t, app, k):
    """A service that this pod has not asked for before."""
    return answers(app, "http://alias%d/quick" % [t.client, t.server].index(app), 200)


def serves_tls(t, app, k):
    return t.first(NEW_ECHOES, k.at)


def serves_proxy(t, app, k):
    return t.first(["request"], k.at)


WORKERS = [("weft-telemetry", serves_telemetry), ("weft-retry", serves_retry), ("weft-link", serves_link),
           ("weft-tls", serves_tls), ("weft-proxy.0", serves_proxy)]


def check_failures(t, where, k):
    """Only what a killed proxy itself carried has broken: all of the client's, the long ones of the server's."""
    failures = t.failures(k.at)
    if k.name == "weft-tls":  # those whose handshake it was just doing: the client may think it done a moment earlier
        failures = [f for f in failures if not (f[0] in NEW_ECHOES and f[1] < k.at)]
    if k.name != "weft-proxy.0":
        assert not failures, (where, k.name, failures)
        return
    who = [f[0] for f in failures]
    assert all(who.count(w) == 1 for w in LONG), failures
    assert all(f[2] < k.ready + 1.0 * SLOW for f in failures), "later than the kill: %s" % failures
    http = [f for f in failures if f[0] in KEPT + ["request"]]
    if where == "server":
        assert not http, "requests that could be retried: %s" % http
    else:
        assert all(f[3].startswith("reset") for f in http), http
        assert all(who.count(w) == 1 for w in KEPT), "each has lost its connection, once: %s" % failures
        Table.resets = len(http)
    assert all(who.count(w) <= 1 for w in NEW_ECHOES + ["request"]), failures


@pytest.mark.parametrize("where", ["client", "server"])
@pytest.mark.parametrize("name,serves", WORKERS, ids=[w[0] for w in WORKERS])
def test_a_worker_of_a_pod(traffic, where, name, serves):
    app = getattr(traffic, where)
    others = pids(app)
    before = total(metrics(traffic.client), "outbound_http_route_retry_requests_total", parent_port="8080")
    k = kill(app, name)
    traffic.goes_on(k.ready)
    check_failures(traffic, where, k)
    Table.add(where, k, serves(traffic, app, k))
    after = pids(app)
    assert {n for n in after if after[n] != others[n]} == {name}, "nobody else was restarted"
    check_failures(traffic, where, k)
    if name == "weft-proxy.0" and where == "server":
        def retried():
            return total(metrics(traffic.client), "outbound_http_route_retry_requests_total", parent_port="8080")
        wait_for(lambda: retried() > before, "requests were in flight, and were made again")


def serves_authority(t, k):
    def token():
        done = t.mesh.weft("token", "--as", "default/somebody", check=False)
        assert done.returncode == 0 or "NO_AUTHORITY" in done.stderr, done.stderr
        return done.returncode == 0
    wait_for(token, "a token")
    return time.monotonic()


def serves_broker(t, k):
    wait_for(lambda: t.mesh.weft("token", "--as", "default/somebody", check=False).returncode == 0, "a token")
    at = time.monotonic()
    for app in (t.client, t.server):
        wait_for(lambda: total(metrics(app), "weft_broker_connected") == 1, app.pod + " has its session back", 15)
    assert t.mesh.sql("select count(*) as n from mesh_events where kind='SESSION_LOST'")[0]["n"] == 0
    return at


def serves_collector(t, k):
    def asked():
        return golden(t.mesh, "outbound")["requests"]
    before = asked()
    wait_for(lambda: asked() > before, "rollups go on", 15)
    return time.monotonic()


CONTROL = [("weft-authority", serves_authority), ("weft-broker", serves_broker), ("weft-collector", serves_collector)]


@pytest.mark.parametrize("name,serves", CONTROL, ids=[c[0] for c in CONTROL])
def test_a_process_of_the_control_plane(traffic, name, serves):
    others = pids(traffic.mesh)
    workers = pids(traffic.client), pids(traffic.server)
    k = kill(traffic.mesh, name)
    Table.add("control", k, serves(traffic, k))
    traffic.goes_on(time.monotonic())
    assert not traffic.failures(k.at)
    after = pids(traffic.mesh)
    assert {n for n in after if after[n] != others[n]} == {name}, "nobody else was restarted"
    assert (pids(traffic.client), pids(traffic.server)) == workers


# ---- no count is lost ----

SUMS = ("requests", "successes", "failures", "retries")


def golden(mesh, direction):
    return mesh.sql("select %s from mesh_golden where width_s=3600 and service='server' and namespace='default' "
                    "and direction='%s'" % (",".join("coalesce(sum(%s),0) as %s" % (s, s) for s in SUMS), direction))[0]


def edge(mesh, direction):
    return mesh.sql("select %s from mesh_edges where width_s=3600 and service='server' and namespace='default' "
                    "and source='client' and direction='%s'" %
                    (",".join("coalesce(sum(%s),0) as %s" % (s, s) for s in SUMS), direction))[0]


def of_pod(series, **labels):
    """The same sums of a pod's own counters."""
    return {"requests": total(series, "request_total", **labels),
            "successes": total(series, "response_total", classification="success", **labels),
            "failures": total(series, "response_total", classification="failure", **labels),
            "retries": total(series, "outbound_http_route_retry_requests_total", parent_name="server")
            if labels["direction"] == "outbound" else 0}


def test_no_count_is_lost(traffic, capsys):
    """Runs last: R resets at the kill of the client's proxy and L lost attempts at the kill of the server's are all that
    may lie between what was answered and what was counted."""
    assert len(Table.rows) == 13, "the tests above belong to this one"
    got, asked = traffic.end()
    answered = sum(n for who, n in got.items() if who in KEPT + ["request"])
    out, inn = settled(lambda: (of_pod(metrics(traffic.client), direction="outbound", dst_service="server", dst_port="8080"),
                                of_pod(metrics(traffic.server), direction="inbound", srv_port="8080")))
    r, lost = Table.resets, out["failures"]
    series = metrics(traffic.client)
    assert total(series, "outbound_http_route_retry_requests_total", parent_name="server", parent_port="8080") == lost, \
        "each attempt that was lost was made again"
    assert total(series, "outbound_http_route_retry_successes_total", parent_name="server", parent_port="8080") == lost
    assert answered <= out["successes"] <= answered + r, (answered, out, r)
    assert 0 <= out["requests"] - out["successes"] - lost <= r, (out, r)
    app = asked["/quick"] + asked["/slow"] - app_only(traffic)
    assert answered <= app <= answered + r + lost, (answered, app, r, lost)
    assert app - r - lost <= inn["successes"] <= app, (app, inn, r, lost)
    assert inn["successes"] >= out["successes"] - lost, (inn, out)
    # SQL says what the pods say, to the last one: the service's sums, and those of the edge from the client.
    for table, direction, app, labels in (
            (golden, "outbound", traffic.client, {"dst_service": "server"}),
            (edge, "outbound", traffic.client, {"dst_service": "server"}),
            (golden, "inbound", traffic.server, {}),
            (edge, "inbound", traffic.server, {"client_id": identity(traffic.client)})):
        want = of_pod(metrics(app), direction=direction, **labels)
        wait_for(lambda: table(traffic.mesh, direction) == want, "%s %s: %s and not %s" % (
            table.__name__, direction, want, table(traffic.mesh, direction)), 15)
    with capsys.disabled():
        print("\n%-8s %-15s %10s %11s" % ("where", "killed", "ready ms", "serving ms"))
        for row in Table.rows:
            print("%-8s %-15s %10d %11.0f" % row)
        print("answered %d, reset %d, lost and made again %d" % (answered, r, lost))
    assert statistics.median(row[2] for row in Table.rows) < 50 * SLOW


def app_only(t):
    """Requests of the link's probe: they reached the server on a way of their own."""
    return total(metrics(t.client), "response_total", direction="outbound", dst_service="alias0", status_code="200") + \
        total(metrics(t.server), "response_total", direction="outbound", dst_service="alias1", status_code="200")


def identity(app):
    return "%s.default.serviceaccount.identity.weft.cluster.local" % app.service
