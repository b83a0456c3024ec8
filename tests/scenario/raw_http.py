"""HTTP/1 by hand, byte for byte, from and in a pod's network: sockets of this process that live in the namespace of a
pod (so that its proxy captures them as it captures its program's), a server that records what came and answers by a
script, and a reader of answers that is strict about framing."""
import ctypes
import os
import select
import socket
import threading

CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)


def inside(netns, make):
    """make() in a network namespace (a name, or None: here), in a thread of its own: sockets stay where they are made."""
    if netns is None:
        return make()
    out = {}

    def run():
        try:
            with open("/run/netns/" + netns) as f:
                if libc.setns(f.fileno(), CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns " + netns)
            out["made"] = make()
        except OSError as e:
            out["error"] = e
    t = threading.Thread(target=run)
    t.start()
    t.join()
    if "error" in out:
        raise out["error"]
    return out["made"]


def connect(app, host, port, timeout=10):
    """A connection from a pod (None: from this machine) to an address."""
    s = inside(app and app.netns, lambda: socket.create_connection((host, port), timeout=timeout))
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


def listen(app, port, host="0.0.0.0"):
    def make():
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((host, port))
        s.listen(256)
        return s
    return inside(app and app.netns, make)


def address_of(mesh, name):
    """The address that /etc/hosts of the pods gives a service."""
    with open(os.path.join(mesh.state_dir, "hosts")) as f:
        for line in f:
            if name in line.split()[1:]:
                return line.split()[0]
    return None


def pod_address(app):
    out = os.popen("ip -n %s -4 -o addr show dev eth0" % app.netns).read()
    return out.split()[3].split("/")[0]


class Ended(Exception):
    """The other end closed, with what had come."""


class Stream:
    """A socket with a buffer: lines, counts, chunks."""

    def __init__(self, s):
        self.s, self.data, self.is_reset = s, b"", False

    def more(self):
        try:
            piece = self.s.recv(65536)
        except ConnectionResetError:
            self.is_reset = True
            piece = b""
        if not piece:
            raise Ended(self.data)
        self.data += piece

    def until(self, mark):
        while mark not in self.data:
            self.more()
        at = self.data.index(mark) + len(mark)
        out, self.data = self.data[:at], self.data[at:]
        return out

    def exactly(self, n):
        while len(self.data) < n:
            self.more()
        out, self.data = self.data[:n], self.data[n:]
        return out

    def rest(self):
        try:
            while True:
                self.more()
        except Ended:
            out, self.data = self.data, b""
            return out

    def chunked(self):
        """(content, trailer lines) of a chunked body, strictly."""
        content = b""
        while True:
            n = int(self.until(b"\r\n")[:-2].split(b";")[0], 16)
            if n == 0:
                break
            content += self.exactly(n)
            assert self.exactly(2) == b"\r\n"
        trailers = []
        while True:
            line = self.until(b"\r\n")[:-2]
            if not line:
                return content, trailers
            trailers.append(line)


class Message:
    def __init__(self, head, content=b"", trailers=()):
        self.head = head
        lines = head[:-4].split(b"\r\n")
        self.line, self.lines = lines[0].decode("latin-1"), [line.decode("latin-1") for line in lines[1:]]
        self.content, self.trailers = content, [t.decode("latin-1") for t in trailers]
        self.informational = []

    @property
    def status(self):
        return int(self.line.split()[1])

    def all(self, name):
        return [v.strip() for n, _, v in (line.partition(":") for line in self.lines) if n.lower() == name.lower()]

    def get(self, name):
        found = self.all(name)
        return found[0] if found else None

    def names(self):
        return [line.partition(":")[0] for line in self.lines]

    def __repr__(self):
        return "<%s %s %r %r>" % (self.line, self.lines, self.content[:200], self.trailers)


def read_answer(st, method="GET"):
    """One answer with its informational ones before it. Content until the end of the connection is read to there."""
    informational = []
    while True:
        m = Message(st.until(b"\r\n\r\n"))
        if m.status >= 200 or m.status == 101:
            break
        informational.append(m)
    m.informational = informational
    if method == "HEAD" or m.status in (204, 304, 101) or (method == "CONNECT" and m.status < 300):
        return m
    assert not (m.all("transfer-encoding") and m.all("content-length")), m
    if m.all("transfer-encoding"):
        assert m.all("transfer-encoding") == ["chunked"], m
        m.content, trailers = st.chunked()
        m.trailers = [t.decode("latin-1") for t in trailers]
    elif m.all("content-length"):
        assert len(m.all("content-length")) == 1, m
        m.content = st.exactly(int(m.get("content-length")))
    else:
        m.content = st.rest()
    return m


def ask(s, data, method="GET"):
    s.sendall(data)
    return read_answer(Stream(s), method)


def is_closed(s, seconds=10):
    """Whether the other end has finished or reset within that time, with nothing more to say."""
    if not select.select([s], [], [], seconds)[0]:
        return False
    try:
        return s.recv(1) == b""
    except ConnectionResetError:
        return True


def plain(content=b"ok", extra=b"", status=b"200 OK"):
    return b"HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n%s" % (status, extra, len(content), content)


class Recorder:
    """A server that keeps every byte it gets, by connection, and reads requests strictly. answer(recorder, request, stream,
    connection) sends what it likes and returns False to end the connection; without it every request gets its own
    target back, so that answers that were mixed up are seen."""

    def __init__(self, app, port, answer=None, raw=None, host="0.0.0.0"):
        self.answer, self.raw = answer or Recorder.echo, raw
        self.lock = threading.Lock()
        self.reset()
        self.socket = listen(app, port, host)
        self.sockets = []
        threading.Thread(target=self._accept, daemon=True).start()

    def reset(self):
        with self.lock:
            self.bytes, self.requests, self.connections, self.broken = {}, [], 0, []

    @staticmethod
    def echo(_recorder, m, _st, c):
        content = m.line.encode("latin-1") + b" " + m.content
        c.sendall(plain(b"" if m.line.startswith("HEAD ") else content))
        return not m.line.endswith("1.0") and "close" not in (m.get("connection") or "")

    def _accept(self):
        while True:
            try:
                c, _ = self.socket.accept()
            except OSError:
                return
            c.settimeout(60)
            c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sockets.append(c)
            threading.Thread(target=self._serve, args=(c,), daemon=True).start()

    def _serve(self, c):
        with self.lock:
            self.connections += 1
            number, store = self.connections, self.bytes
            store[number] = b""
        recorder = self

        class Recording(Stream):
            def more(self):
                before = len(self.data)
                super().more()
                with recorder.lock:
                    store[number] += self.data[before:]
        st = Recording(c)
        try:
            if self.raw is not None:
                self.raw(self, st, c)
                return
            while self._one(st, c):
                pass
        except (Ended, OSError):
            pass
        except Exception as e:  # a request that is not strict: the test looks at this list
            with self.lock:
                self.broken.append((number, repr(e), store[number]))
        finally:
            c.close()

    def _one(self, st, c):
        m = Message(st.until(b"\r\n\r\n"))
        te, cl = m.all("transfer-encoding"), m.all("content-length")
        assert not (te and cl) and len(te) < 2 and len(cl) < 2 and te in ([], ["chunked"]), m
        if m.get("expect") and self.answer is Recorder.echo:
            c.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if te:
            m.content, trailers = st.chunked()
            m.trailers = [t.decode("latin-1") for t in trailers]
        elif cl and not getattr(self.answer, "reads_content", False):
            m.content = st.exactly(int(cl[0]))
        with self.lock:
            self.requests.append(m)
        return self.answer(self, m, st, c) is not False

    def close(self):
        # A close() alone would leave accept() in its system call, and the port taken.
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.socket.close()
        for c in self.sockets:
            try:
                c.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            c.close()
