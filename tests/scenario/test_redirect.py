"""The redirect of one namespace, against a stand-in for the proxy that says what it was connected for."""
import json
import socket
import subprocess
import sys
import threading

import pytest

from meshes import WEFT

# Listens on the ports of its arguments, IPv4 and IPv6, and answers every connection with one JSON line:
# the port it came in on and its original destination. Runs as uid 2102, as weft-proxy does.
STAND_IN = r'''
import json, selectors, socket, struct, sys
sel = selectors.DefaultSelector()
for port in map(int, sys.argv[1:]):
    s = socket.socket(socket.AF_INET6)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    s.bind(("::", port))
    s.listen(64)
    sel.register(s, selectors.EVENT_READ, port)
print("listening", flush=True)
while True:
    for key, _ in sel.select():
        c, peer = key.fileobj.accept()
        if peer[0].startswith("::ffff:"):
            raw = c.getsockopt(0, 80, 16)
            to = [socket.inet_ntoa(raw[4:8]), struct.unpack("!H", raw[2:4])[0]]
        else:
            raw = c.getsockopt(41, 80, 28)
            to = [socket.inet_ntop(socket.AF_INET6, raw[8:24]), struct.unpack("!H", raw[2:4])[0]]
        if to[1] == 20001:
            c.sendall(b"weft-capture-ok\n")
        else:
            c.sendall(json.dumps({"in": key.data, "to": to}).encode() + b"\n")
        c.close()
'''

ASK = r'''
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=float(sys.argv[3]))
print(s.recv(1000).decode(), end="")
'''


def weft(*argv):
    return subprocess.run([WEFT, *argv], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def proxy(lab, ns, *ports):
    p = lab.popen(ns, sys.executable, "-c", STAND_IN, *map(str, ports), uid=2102, stdout=subprocess.PIPE)
    assert p.stdout.readline() == "listening\n"
    return p


def ask(lab, ns, ip, port, uid=1000, timeout=3):
    done = lab.exec(ns, sys.executable, "-c", ASK, ip, str(port), str(timeout), uid=uid)
    return json.loads(done.stdout) if done.returncode == 0 and done.stdout.startswith("{") else None


def ask_from_here(ip, port):
    with socket.create_connection((ip, port), timeout=3) as s:
        return json.loads(s.recv(1000))


@pytest.fixture
def pod(lab):
    ns = lab.add(5)
    done = weft("redirect", "apply", "--netns", ns, "--skip-inbound", "9100-9102,9101", "--skip-outbound",
                "9200")
    assert done.returncode == 0, done.stderr
    proxy(lab, ns, 4140, 4143, 4191, 9100, 9200, 8080)
    return ns


@pytest.mark.asan
@pytest.mark.parametrize("ip", ["198.51.100.7", "10.199.7.77", "2001:db8:5::9", "fd99:7::77"])
def test_what_a_program_opens_arrives_with_its_destination(lab, pod, ip):
    assert ask(lab, pod, ip, 8080) == {"in": 4140, "to": [ip, 8080]}
    assert ask(lab, pod, ip, 443, uid=0) == {"in": 4140, "to": [ip, 443]}


@pytest.mark.parametrize("ip", ["10.199.7.5", "fd99:7::5"])
def test_what_comes_to_the_pod_arrives_with_its_destination(lab, pod, ip):
    assert ask_from_here(ip, 8080) == {"in": 4143, "to": [ip, 8080]}
    assert ask_from_here(ip, 4143) == {"in": 4143, "to": [ip, 4143]}
    assert ask_from_here(ip, 4140) == {"in": 4143, "to": [ip, 4140]}, "the outbound port is not for others"


def test_weft_itself_and_the_pods_own_addresses_are_left_alone(lab, pod):
    assert ask(lab, pod, "10.199.7.5", 8080) == {"in": 8080, "to": ["10.199.7.5", 8080]} or \
        ask(lab, pod, "10.199.7.5", 8080) is None  # no original destination: the stand-in may fail on it
    other = lab.add(6)
    proxy(lab, other, 8080)
    assert ask(lab, pod, "10.199.7.6", 8080, uid=1000)["in"] == 4140
    got = lab.exec(pod, sys.executable, "-c", ASK, "10.199.7.6", "8080", "3", uid=2102)
    assert '"in": 4140' not in got.stdout


def test_skipped_ports(lab, pod):
    seen = []
    server = socket.create_server(("10.199.7.1", 9200))

    def serve():
        c, peer = server.accept()
        seen.append(peer[0])
        c.close()
    t = threading.Thread(target=serve)
    t.start()
    lab.exec(pod, sys.executable, "-c", ASK, "10.199.7.1", "9200", "3", uid=1000)
    t.join(5)
    server.close()
    assert seen == ["10.199.7.5"], "a skipped port is connected directly"
    for port in (9100, 4191):  # directly: the stand-in listens there, with no original destination to tell
        with socket.create_connection(("10.199.7.5", port), timeout=3) as s:
            assert b'"in": 4143' not in s.recv(1000)


def test_udp_is_not_touched(lab, pod):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("10.199.7.1", 0))
    s.settimeout(3)
    lab.exec(pod, sys.executable, "-c",
             "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('10.199.7.1', %d))"
             % s.getsockname()[1], uid=1000)
    assert s.recvfrom(10)[1][0] == "10.199.7.5"
    s.close()


def ruleset(lab, ns):
    return lab.exec(ns, "nft", "list", "ruleset").stdout


def test_apply_twice_is_apply_once_and_remove_removes(lab, pod):
    first = ruleset(lab, pod)
    assert weft("redirect", "apply", "--netns", pod, "--skip-inbound", "9100-9102", "--skip-outbound",
                "9200").returncode == 0
    assert ruleset(lab, pod) == first
    assert weft("redirect", "apply", "--netns", pod, "--inbound-port", "5143").returncode == 0
    assert ":5143" in ruleset(lab, pod) and ":4143" not in ruleset(lab, pod)
    for _ in range(2):
        assert weft("redirect", "remove", "--netns", pod).returncode == 0
        assert ruleset(lab, pod).strip() == ""


def test_a_refused_ruleset_leaves_the_old_one(lab, pod):
    first = ruleset(lab, pod)
    for bad in (["--skip-inbound", "80,"], ["--skip-inbound", "90-80"], ["--skip-outbound", "0"],
                ["--skip-outbound", "65536"], ["--skip-inbound", "80;drop"], ["--outbound-port", "0"],
                ["--outbound-port", "4143"], ["--inbound-port", "70000"]):
        assert weft("redirect", "apply", "--netns", pod, *bad).returncode == 2, bad
    assert ruleset(lab, pod) == first


@pytest.mark.asan
def test_check_tells_captured_from_not(lab, pod, tmp_path):
    def check(*more):
        done = weft("redirect", "check", "--netns", pod, "--timeout", "500ms", "--report", str(tmp_path),
                    "--pod-address", "10.199.7.5", "--pod-address", "fd99:7::5", *more)
        return done.returncode, (tmp_path / "capture").read_text()

    lab.ip("-n", pod, "link", "add", "weft-probe", "type", "bridge")
    lab.ip("-n", pod, "link", "set", "weft-probe", "up")
    lab.ip("-n", pod, "route", "add", "192.0.2.0/24", "dev", "weft-probe")
    lab.ip("-n", pod, "route", "add", "2001:db8::/32", "dev", "weft-probe")
    assert check() == (0, "ok\n")
    weft("redirect", "apply", "--netns", pod, "--no-ipv6")
    code, said = check()
    assert code == 1 and said.startswith("not-protected inbound") and "fd99:7::5" in said
    weft("redirect", "apply", "--netns", pod, "--inbound-port", "4999")
    assert check()[1].startswith("not-protected inbound traffic is not redirected, or weft-proxy")
    weft("redirect", "apply", "--netns", pod, "--outbound-port", "4998")
    assert check()[1].startswith("not-protected outbound traffic is redirected, but weft-proxy does not")
    weft("redirect", "remove", "--netns", pod)
    done = weft("redirect", "check", "--netns", pod, "--timeout", "300ms")
    assert done.returncode == 1 and "outbound traffic is not redirected" in done.stderr
    weft("redirect", "apply", "--netns", pod, "--outbound-port", "4191")
    weft("redirect", "apply", "--netns", pod)
    assert check() == (0, "ok\n")


def test_check_is_not_fooled_by_a_stranger(lab):
    ns = lab.add(7)
    weft("redirect", "apply", "--netns", ns)
    p = lab.popen(ns, sys.executable, "-c",
                  "import socket\ns = socket.create_server(('', 4140))\nprint('up', flush=True)\n"
                  "while True:\n c = s.accept()[0]\n c.sendall(b'weft-capture-ok?'); c.close()\n",
                  uid=2102, stdout=subprocess.PIPE)
    assert p.stdout.readline() == "up\n"
    done = weft("redirect", "check", "--netns", ns, "--no-ipv6")
    assert done.returncode == 1 and "not weft-proxy" in done.stderr


def test_the_report_follows_no_link(lab, pod, tmp_path):
    """The pod's run directory belongs to an unprivileged user; the writer is root."""
    precious = tmp_path / "precious"
    precious.write_text("keep me")
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "capture").symlink_to(precious)
    (run_dir / "capture.new").symlink_to(precious)
    weft("redirect", "check", "--netns", pod, "--no-ipv6", "--timeout", "200ms", "--report", str(run_dir))
    assert precious.read_text() == "keep me"
    assert not (run_dir / "capture").is_symlink()


def test_print_needs_no_rights():
    done = subprocess.run(["setpriv", "--reuid", "nobody", "--clear-groups", "--regid", "nogroup", WEFT,
                           "redirect", "print"], text=True, stdout=subprocess.PIPE)
    assert done.returncode == 0 and "tcp redirect to :4140" in done.stdout
