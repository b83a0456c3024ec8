"""Weft's pair: an embedded control plane and two pods by hand on loopback, without namespaces and redirect, as the
other contenders run. The client's pod sends everything to the service `server`; its endpoint is the second pod."""
import os
import random
import time

from . import procs

POD_UID = 2102


def _free_net():
    """The second number of a 10.N.0.0/16 of our own, so that several runs do not meet."""
    for n in range(218, 256):
        if not os.path.exists(f"/sys/class/net/wbench{n}"):
            return n
    raise RuntimeError("no bridge wbenchN is free")


def _pod(pair, name, ip, serves, ports, anchors, key, **more):
    run, state = (os.path.join(pair.dir, d, "pods", name) for d in ("run", "state"))
    for d in (run, state):
        os.makedirs(d, mode=0o700, exist_ok=True)
        os.chown(d, POD_UID, POD_UID)
    out = pair.weft("token", "--as", f"default/{name}", "--anchors")
    token = os.path.join(state, "token")
    pem = os.path.join(state, "anchors.pem")
    for path, text in ((token, out.splitlines()[0]), (pem, anchors)):
        with open(path, "w") as f:
            f.write(text)
        os.chmod(path, 0o600)
        os.chown(path, POD_UID, POD_UID)
    outbound, inbound, admin = ports
    broker = f"10.{pair.net}.0.1"
    env = procs.env(
        WEFT_RUN_DIR=run, WEFT_STATE_DIR=state, WEFT_POD=name, WEFT_WORKLOAD=name, WEFT_SERVICE_ACCOUNT=name,
        WEFT_POD_IPS=ip, WEFT_IPV6="false", WEFT_SERVES=serves, WEFT_BROKER=f"{broker}:8086",
        WEFT_BROKER_UPDATES=f"{broker}:8087", WEFT_COLLECTOR=f"{broker}:8089", WEFT_BROKER_KEY=key,
        WEFT_JOIN_TOKEN_FILE=token, WEFT_TRUST_ANCHORS_FILE=pem, WEFT_OUTBOUND_PORT=str(outbound),
        WEFT_INBOUND_PORT=str(inbound), WEFT_ADMIN_PORT=str(admin), WEFT_UID=str(POD_UID), WEFT_GID=str(POD_UID),
        WEFT_INCARNATION=str(random.getrandbits(62)), **more)
    return pair.run([os.path.join(pair.bin, "weft-supervisor"), "pod"], env=env)


def _ready(port, seconds=20):
    import urllib.request
    end = time.monotonic() + seconds
    last = "no answer"
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=1):
                return
        except OSError as e:
            last = str(e)
            time.sleep(0.1)
    raise RuntimeError(f"pod with admin port {port} is not ready: {last}")


def _anchors(pair):
    lines = pair.weft("token", "--as", "default/anchors", "--anchors").splitlines()
    return "\n".join(lines[2:]) + "\n", lines[1]


def idle_pod(pair, name):
    """One more pod, without traffic."""
    anchors, key = _anchors(pair)
    ports = procs.free_ports(3)
    p = _pod(pair, name, "127.0.0.1", "", ports, anchors, key)
    _ready(ports[2])
    return p


def client_of(pair, name, port, target_port):
    """One more pod whose outbound port `port` leads to the server's port target_port."""
    anchors, key = _anchors(pair)
    ports = procs.free_ports(2)
    p = _pod(pair, name, "127.0.0.1", "", (port, ports[0], ports[1]), anchors, key,
             WEFT_OUTBOUND_TARGET=f"server:{target_port}", **pair.settings)
    _ready(ports[1])
    return p


def start(pair):
    for d in ("run", "state"):
        os.makedirs(os.path.join(pair.dir, d), exist_ok=True)
    pair.net = _free_net()
    pair.weft("up", "--bridge", f"wbench{pair.net}", "--net", f"10.{pair.net}.0.0/16", state=True)
    pair.is_up = True
    start_pods(pair)


def start_pods(pair):
    """The two pods of a pair whose control plane runs: the service's name is the pair's."""
    anchors, key = _anchors(pair)
    ports = procs.free_ports(5)
    name = pair.service
    _pod(pair, name, procs.SERVER_IP, pair.serves(), (ports[2], pair.inner, ports[0]), anchors, key, **pair.settings)
    _pod(pair, name + "-client", "127.0.0.1", "", (pair.port, ports[3], ports[1]), anchors, key,
         WEFT_OUTBOUND_TARGET=f"{name}:{pair.origin}", **pair.settings)
    for admin in ports[:2]:
        _ready(admin)
