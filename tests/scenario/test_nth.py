"""The n-th allocation, read, write or opening of a socket fails, for every n of a request's life, in the client's proxy and in the
server's: nothing crashes, nothing leaks, no wrong byte is delivered, and the next request is served.

A library preloaded into weft-proxy (fault_shim.c) counts and fails; driver.py below runs in the client's pod, asks, and
judges each answer. What is only slow (a short read or write, EAGAIN) may not be seen at all; what breaks a connection or takes its memory
may be answered by the mesh or cut, visibly."""
import json
import os
import textwrap

import pytest

from meshes import BUILD, wait_for
from traffic import metrics, total

SHIM = os.path.join(BUILD, "tests", "libweft-fault.so")

pytestmark = pytest.mark.skipif(not os.path.exists(SHIM), reason="a sanitizer build has its own allocator")

SERVER = textwrap.dedent(r'''
    import hashlib, socket, sys, threading

    def until(c, mark, data=b""):
        while mark not in data:
            piece = c.recv(65536)
            if not piece:
                raise EOFError
            data += piece
        return data

    def exactly(c, n, data):
        while len(data) < n:
            piece = c.recv(65536)
            if not piece:
                raise EOFError
            data += piece
        return data[:n], data[n:]

    def chunked(c, rest):
        body = b""
        while True:
            line, rest = until(c, b"\r\n", rest).split(b"\r\n", 1)
            size = int(line, 16)
            if size == 0:
                while line:  # trailers
                    line, rest = until(c, b"\r\n", rest).split(b"\r\n", 1)
                return body, rest
            piece, rest = exactly(c, size + 2, rest)
            body += piece[:-2]

    def say(text):
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def http(c):
        rest = b""
        while True:
            head, rest = until(c, b"\r\n\r\n", rest).split(b"\r\n\r\n", 1)
            fields = {l.split(b":")[0].lower(): l.split(b":", 1)[1].strip() for l in head.split(b"\r\n")[1:]}
            ident = fields.get(b"x-id", b"-").decode()
            if b"upgrade" in fields:
                c.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: odd/1\r\n\r\n")
                while True:
                    piece = c.recv(65536)
                    if not piece:
                        return
                    c.sendall(piece.swapcase())
            if fields.get(b"transfer-encoding") == b"chunked":
                body, rest = chunked(c, rest)
            else:
                body, rest = exactly(c, int(fields.get(b"content-length", b"0")), rest)
            if fields.get(b"x-sum", b"-") not in (b"-", hashlib.sha256(body).hexdigest().encode()):
                say("WRONG %s: %d bytes" % (ident, len(body)))
            say("GOT %s %d bytes" % (ident, len(body)))
            answer = body.swapcase() + b"."
            if b"x-chunked" in fields:
                half = len(answer) // 2
                c.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                for part in (answer[:half], answer[half:]):
                    if part:
                        c.sendall(b"%x\r\n" % len(part) + part + b"\r\n")
                c.sendall(b"0\r\nX-Sum: %d\r\n\r\n" % len(answer))
            else:
                c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer)

    def http2(c):
        import h2.config, h2.connection, h2.events
        h = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        h.initiate_connection()
        c.sendall(h.data_to_send())
        streams = {}
        while True:
            piece = c.recv(65536)
            if not piece:
                return
            for e in h.receive_data(piece):
                if isinstance(e, h2.events.RequestReceived):
                    streams[e.stream_id] = [{k: v for k, v in e.headers}, b""]
                elif isinstance(e, h2.events.DataReceived):
                    streams[e.stream_id][1] += e.data
                    h.acknowledge_received_data(e.flow_controlled_length, e.stream_id)
                elif isinstance(e, h2.events.StreamReset):
                    streams.pop(e.stream_id, None)
                elif isinstance(e, h2.events.StreamEnded):
                    fields, body = streams.pop(e.stream_id)
                    if fields[b"x-sum"] != hashlib.sha256(body).hexdigest().encode():
                        say("WRONG " + fields[b"x-id"].decode())
                    say("GOT " + fields[b"x-id"].decode())
                    h.send_headers(e.stream_id, [(":status", "200")])
                    h.send_data(e.stream_id, body.swapcase() + b".", end_stream=True)
            c.sendall(h.data_to_send())

    def raw(c):
        data = b""
        while True:
            piece = c.recv(65536)
            if not piece:
                break
            data += piece
        c.sendall(hashlib.sha256(data).hexdigest().encode())

    def serve(port, handler):
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("0.0.0.0", port))
        s.listen(128)
        def one(c):
            try:
                handler(c)
            except (EOFError, OSError):
                pass
            except Exception as e:  # of the HTTP/2 library: a peer that broke the protocol
                say("WRONG %r" % e)
            finally:
                c.close()
        while True:
            c, _ = s.accept()
            threading.Thread(target=one, args=(c,), daemon=True).start()

    threading.Thread(target=serve, args=(9000, raw), daemon=True).start()
    threading.Thread(target=serve, args=(8081, http2), daemon=True).start()
    serve(8080, http)
''')

DRIVER = textwrap.dedent(r'''
    import hashlib, json, mmap, socket, struct, sys, time
    host, paths, passes = sys.argv[1], sys.argv[2:4], int(sys.argv[4])

    class Control:
        """fault_shim.c's struct control."""
        def __init__(self, path):
            with open(path, "r+b") as f:
                self.m = mmap.mmap(f.fileno(), 4096)
        def arm(self, kind, mode, n):
            struct.pack_into("<I", self.m, 0, 0)
            struct.pack_into("<QQQ", self.m, 8, n, 0, 0)
            struct.pack_into("<I", self.m, 4, mode)
            struct.pack_into("<I", self.m, 0, kind)
        def disarm(self):
            struct.pack_into("<I", self.m, 0, 0)
            return struct.unpack_from("<QQ", self.m, 16)  # calls, hits
        def living(self):
            return struct.unpack_from("<qq", self.m, 32)
        def where(self):
            return " ".join("%#x" % a for a in struct.unpack_from("<12Q", self.m, 48) if a)

    class Visible(Exception):
        """The request did not succeed, and the client can see it."""

    BODY = bytes(i * 7 % 251 for i in range(20000))
    BODY = BODY.swapcase().swapcase()
    serial = 0

    def connect(port=8080):
        s = socket.create_connection((host, port), 10)
        s.settimeout(10)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return s

    def more(s, data):
        try:
            piece = s.recv(65536)
        except socket.timeout:
            raise AssertionError("nothing came for 10 s after %r" % data[-100:])
        except OSError as e:
            raise Visible("reset: %s" % e)
        if not piece:
            raise Visible("closed early")
        return data + piece

    def send(s, data):
        try:
            s.sendall(data)
        except OSError as e:
            raise Visible("reset while sending: %s" % e)

    def head_of(body, more_fields=b"", verb=b"POST"):
        global serial
        serial += 1
        return (b"%s /x HTTP/1.1\r\nHost: web\r\nX-Id: %d\r\nX-Sum: %s\r\n" %
                (verb, serial, hashlib.sha256(body).hexdigest().encode()) + more_fields + b"\r\n")

    def answer(s, expect):
        data = b""
        while b"\r\n\r\n" not in data:
            data = more(s, data)
        head, data = data.split(b"\r\n\r\n", 1)
        assert head.startswith(b"HTTP/1.1 "), "content without a head"
        lower = head.lower()
        status = int(head.split()[1])
        if b"transfer-encoding: chunked" in lower:
            body = b""
            while True:
                while b"\r\n" not in data:
                    data = more(s, data)
                line, data = data.split(b"\r\n", 1)
                size = int(line, 16)
                while size > 0 and len(data) < size + 2:
                    data = more(s, data)
                if size == 0:
                    while not (data.startswith(b"\r\n") or b"\r\n\r\n" in data):
                        data = more(s, data)
                    break
                assert data[size:size + 2] == b"\r\n"
                body, data = body + data[:size], data[size + 2:]
        else:
            n = int([l.split(b":")[1] for l in lower.split(b"\r\n") if l.startswith(b"content-length")][0])
            while len(data) < n:
                data = more(s, data)
            body = data[:n]
        if status != 200:
            assert b"weft-code:" in lower, head
            raise Visible("answered %d" % status)
        assert body == expect, "wrong content: %d of %d bytes behind %r" % (len(body), len(expect), head)

    def get(s):
        send(s, head_of(b"", b"Content-Length: 0\r\n", b"GET"))
        answer(s, b".")

    kept = []
    def on_a_kept_connection():
        s = kept.pop()
        try:
            get(s)
        except Visible:
            s.close()
            raise
        kept.append(s)

    def on_a_new_connection():
        with connect() as s:
            get(s)

    def post_by_length():
        with connect() as s:
            send(s, head_of(BODY, b"Content-Length: %d\r\n" % len(BODY)) + BODY)
            answer(s, BODY.swapcase() + b".")

    def post_chunked():
        with connect() as s:
            send(s, head_of(BODY, b"X-Chunked: 1\r\nTransfer-Encoding: chunked\r\n"))
            for at in range(0, len(BODY), 5000):
                send(s, b"%x\r\n" % 5000 + BODY[at:at + 5000] + b"\r\n")
            send(s, b"0\r\nX-End: 1\r\n\r\n")
            answer(s, BODY.swapcase() + b".")

    def upgraded():
        with connect() as s:
            send(s, b"GET /x HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: odd/1\r\n\r\n")
            data = b""
            while b"\r\n\r\n" not in data:
                data = more(s, data)
            head, data = data.split(b"\r\n\r\n", 1)
            if not head.startswith(b"HTTP/1.1 101"):
                assert b"weft-code" in head.lower(), head
                raise Visible("answered %r" % head[:20])
            for i in range(3):
                send(s, b"hello %d" % i)
                want = b"HELLO %d" % i
                while len(data) < len(want):
                    data = more(s, data)
                assert data == want, data
                data = b""

    def opaque():
        with connect(9000) as s:
            send(s, b"\0" + BODY)
            try:
                s.shutdown(socket.SHUT_WR)
            except OSError as e:
                raise Visible("reset: %s" % e)
            want = hashlib.sha256(b"\0" + BODY).hexdigest().encode()
            data = b""
            while len(data) < len(want):
                data = more(s, data)
            assert data == want, "the application got other bytes"

    def frame(kind, flags, stream, payload=b""):
        return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload

    def h2_field(name, value):
        n = len(value)
        assert len(name) < 127
        length = bytes([n]) if n < 127 else b"\x7f" + bytes([n - 127])
        return b"\0" + bytes([len(name)]) + name + length + value

    def http2():
        global serial
        serial += 1
        body = BODY[:3000]
        with connect(8081) as s:
            head = (b"\x83\x86" + h2_field(b":path", b"/x") + h2_field(b":authority", b"web") +
                    h2_field(b"x-id", b"%d" % serial) + h2_field(b"x-sum", hashlib.sha256(body).hexdigest().encode()))
            send(s, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0) + frame(1, 4, 1, head) + frame(0, 1, 1, body))
            data, content, is_ok = b"", b"", None
            while True:
                while len(data) < 9 or len(data) < 9 + int.from_bytes(data[:3], "big"):
                    data = more(s, data)
                n, kind, flags = int.from_bytes(data[:3], "big"), data[3], data[4]
                stream, payload, data = int.from_bytes(data[5:9], "big"), data[9:9 + n], data[9 + n:]
                if kind == 1 and stream == 1 and is_ok is None:
                    first = payload
                    is_ok = payload.lstrip(b"\x20\x3f\xe1\x1f")[:1] == b"\x88"  # behind updates of the table's size
                if kind == 0 and stream == 1:
                    content += payload
                if kind == 3 and stream == 1:
                    raise Visible("stream reset")
                if kind == 7:
                    raise Visible("GOAWAY")
                if stream == 1 and kind in (0, 1) and flags & 1:
                    break
            if not is_ok:
                raise Visible("another status: %r" % first)
            assert content == body.swapcase() + b".", "wrong content: %d bytes" % len(content)

    REQUESTS = [on_a_kept_connection, on_a_new_connection, post_by_length, post_chunked, upgraded, opaque, http2]
    SHORT, AGAIN, RESET, END = range(4)
    FAULTS = [("allocation", 1, 0, False), ("short read", 2, SHORT, True), ("read EAGAIN", 2, AGAIN, True),
              ("read reset", 2, RESET, False), ("read end", 2, END, False), ("short write", 3, SHORT, True),
              ("write EAGAIN", 3, AGAIN, True), ("write reset", 3, RESET, False), ("no descriptor", 4, 0, False)]
    controls = [Control(p) for p in paths]
    report = {"tried": 0, "hit": 0, "visible": 0, "wrong": [], "living": []}

    def probe(ask, what, where):
        """The mesh serves: at once, or as soon as a connection was made again."""
        end = time.monotonic() + 20
        while True:
            try:
                return on_a_new_connection() if ask is on_a_kept_connection else ask()
            except Visible as e:
                if time.monotonic() > end:
                    report["wrong"].append("%s: not served any more: %s" % (what, e))
                    return
                time.sleep(0.02)
            except AssertionError as e:
                report["wrong"].append("the request after %s (addr2line weft-proxy %s): %s" % (what, where, e))
                return

    def one(c, ask, kind, mode, is_mild, n, what):
        if ask is on_a_kept_connection:  # an earlier fault may have ended it behind its answer
            while kept:
                kept.pop().close()
            kept.append(connect())
            get(kept[0])
        c.arm(kind, mode, n)
        try:
            ask()
        except Visible as e:
            report["visible"] += 1
            if is_mild:
                report["wrong"].append("%s: %s" % (what, e))
        except AssertionError as e:
            report["wrong"].append("%s (addr2line weft-proxy %s): %s" % (what, c.where(), e))
        calls, hits = c.disarm()
        report["tried"] += 1
        report["hit"] += hits
        if hits and not is_mild:
            probe(ask, what, c.where())
        return hits

    for turn in range(passes):
        for side, c in zip(("client", "server"), controls):
            for name, kind, mode, is_mild in FAULTS:
                for ask in REQUESTS:
                    for n in range(1, 400):
                        if len(report["wrong"]) > 10:
                            break
                        if not one(c, ask, kind, mode, is_mild, n, "%s %d of %s in the %s's proxy" % (
                                name, n, ask.__name__, side)):
                            break
        while kept:
            kept.pop().close()
        time.sleep(4)  # pooled connections end after 3 s; so do the last closings
        report["living"].append([c.living() for c in controls])
    print(json.dumps(report))
''')


@pytest.fixture(scope="module")
def pair(shared_mesh):
    faults = os.path.join(shared_mesh.dir, "faults")
    os.mkdir(faults)
    os.chmod(faults, 0o755)
    env = {"WEFT_TEST_PRELOAD": "true", "LD_PRELOAD": SHIM, "FAKETIME_WEFT_FAULTS": faults}

    def prepare(pod):
        path = os.path.join(faults, pod)
        with open(path, "wb") as f:
            f.write(bytes(4096))
        os.chmod(path, 0o666)
        return path

    paths = [prepare("client-2"), prepare("web-1")]
    web = shared_mesh.run("web", ["python3", shared_mesh.python(SERVER)], ports=["8080", "8081", "9000"], env=env)
    client = shared_mesh.run("client", ["sleep", "100000"], env=env)
    wait_for(lambda: client.http("http://web:8080/").status == 200, "web serves")
    return client, web, paths


def pid_of(app):
    row = next(r for n, r in app.status().items() if n.startswith("weft-proxy"))
    return row["pid"], row["restarts"]


def test_every_nth(shared_mesh, pair):
    client, web, paths = pair
    before = [pid_of(a) for a in (client, web)]
    done = client.exec("python3", shared_mesh.python(DRIVER), "web", *paths, "3", timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout)
    print("%(tried)d requests, %(hit)d faults met, %(visible)d seen by the client; living %(living)s" % report)
    assert not report["wrong"], "\n".join(report["wrong"] + [l for l in web.output().splitlines() if "WRONG" in l])
    ends = [l for a in (client, web) for l in a.log().splitlines() if "process ended" in l or " bug " in l or "crash " in l]
    assert [pid_of(a) for a in (client, web)] == before, ends
    assert report["hit"] > 500
    # The first pass fills pools and tables; the further ones may not add to them.
    for side in (0, 1):
        (_, _), (blocks2, bytes2), (blocks3, bytes3) = [p[side] for p in report["living"]]
        # Blocks, because buffers that are kept differ in size: a leak is at least one block for each of its faults.
        assert blocks3 - blocks2 < 50 and bytes3 - bytes2 < 1024 * 1024, report["living"]

    # What the application got was right, and nothing that may not be repeated came twice.
    lines = web.output().splitlines()
    assert not [l for l in lines if l.startswith("WRONG")], lines
    # Every connection that ended has one named reason.
    for app in (client, web):
        wait_for(lambda: total(metrics(app), "weft_connection_close_total") > 100, "closings are counted")
        reasons = {labels["reason"] for name, labels, _ in metrics(app) if name == "weft_connection_close_total"}
        assert reasons and not reasons & {"", "INTERNAL"}, reasons
