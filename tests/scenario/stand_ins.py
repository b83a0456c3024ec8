"""Stand-ins for weft-supervisor, so that what `weft` makes and unmakes is tested apart from the processes,
with every kind of failure on demand: WEFT_STAND_IN is a comma list of faults.

    no-ready     the pod never becomes ready          dies       the pod's supervisor ends at once
    dies-later   ... one second after it was ready    no-proxy   nobody listens on 4140 and 4143
    no-token     the broker refuses a token           no-answer  the broker answers nothing
    stubborn     ignores SIGTERM
"""
import os
import stat

SUPERVISOR = r'''#!/usr/bin/python3
import json, os, selectors, signal, socket, struct, sys, time
FAULTS = os.environ.get("WEFT_STAND_IN", "").split(",")
RUN, STATE = os.environ["WEFT_RUN_DIR"], os.environ["WEFT_STATE_DIR"]

def status(rows):
    text = "name pid state restarts since_ms ready_ms notes\n"
    for name, state in rows:
        text += "%s %d %s 0 %d 1\n" % (name, os.getpid(), state, time.time() * 1000)
    with open(RUN + "/status.new", "w") as f:
        f.write(text)
    os.rename(RUN + "/status.new", RUN + "/status")

def on_term(*_):
    if "stubborn" not in FAULTS:
        os._exit(0)
signal.signal(signal.SIGTERM, on_term)

def control():
    import msgpack, zmq
    with open(STATE + "/hosts", "w") as f:
        f.write("127.0.0.1 localhost\n10.9.8.7 web web.default\n")
    os.chmod(STATE + "/hosts", 0o644)
    s = zmq.Context().socket(zmq.ROUTER)
    s.bind("ipc://%s/broker.sock" % RUN)
    status([("weft-supervisor", "ready"), ("weft-broker", "ready")])
    while True:
        who, body = s.recv_multipart()
        m = msgpack.unpackb(body)
        code, rid = m[0], m[2]
        if "no-answer" in FAULTS:
            continue
        if code == 0x070a:
            out = [0x070b, 1, rid, "0.1.0", 1, 7, 0, 1000, 4102444800000, 4102444800000, True]
        elif code == 0x0706 and "no-token" not in FAULTS:
            out = [0x0707, 1, rid, "weft1.0123456789abcdef." + "0" * 64, "k" * 40, b"PEM\n"]
        else:
            out = [0x0403, 1, rid, "NOT_NOW", "the stand-in refuses"]
        s.send_multipart([who, msgpack.packb(out, use_bin_type=True)])

def pod():
    assert os.getuid() == 2102, "a pod runs as 2102"
    with open(STATE + "/token") as f:
        assert f.read().startswith("weft1.")
    with open(STATE + "/env.json", "w") as f:
        json.dump({k: v for k, v in os.environ.items() if k.startswith("WEFT_")}, f)
    if "dies" in FAULTS:
        print("the stand-in dies as it was told", file=sys.stderr)
        sys.exit(9)
    sel = selectors.DefaultSelector()
    for port in (4140, 4143, 4191):
        if port != 4191 and "no-proxy" in FAULTS:
            continue
        s = socket.socket(socket.AF_INET6)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        s.bind(("::", port))
        s.listen(64)
        sel.register(s, selectors.EVENT_READ, port)
    status([("weft-supervisor", "ready"), ("weft-proxy.0", "ready")])
    end = time.monotonic() + (1 if "dies-later" in FAULTS else 1e9)
    while time.monotonic() < end:
        for key, _ in sel.select(0.1):
            c, peer = key.fileobj.accept()
            if key.data == 4191:
                c.recv(1000)
                c.sendall(b"HTTP/1.1 503 no\r\n\r\n" if "no-ready" in FAULTS else b"HTTP/1.1 200 OK\r\n\r\n")
            else:
                c.sendall(b"weft-capture-ok\n")
            c.close()

{"control": control, "pod": pod}[sys.argv[1]]()
'''


def install(directory):
    """Writes the stand-in into a directory that every user may read; the value for WEFT_BIN_DIR."""
    path = os.path.join(directory, "weft-supervisor")
    with open(path, "w") as f:
        f.write(SUPERVISOR)
    os.chmod(path, stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)
    return directory
