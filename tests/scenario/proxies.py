"""One weft-proxy started by hand, without a supervisor: WEFT_OUTBOUND_TARGET (or WEFT_INBOUND_TARGET) names the
server, there is no link, so everything is plain text to that address."""
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

from meshes import BUILD


def listener():
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("127.0.0.1", 0))
    s.listen(128)
    return s


class Proxy:
    def __init__(self, target, inbound=False, **env):
        self.socket = listener()
        self.port = self.socket.getsockname()[1]
        self.run_dir = tempfile.mkdtemp(prefix="weft-proxy-")
        self.log_file = open(os.path.join(self.run_dir, "log"), "w+b")
        fd = self.socket.fileno()
        settings = {
            "WEFT_FDS": "%s=%d" % ("inbound" if inbound else "outbound", fd),
            "WEFT_RUN_DIR": self.run_dir,
            "WEFT_INBOUND_TARGET" if inbound else "WEFT_OUTBOUND_TARGET": "127.0.0.1:%d" % target,
            "WEFT_FAILFAST_TIMEOUT": "300ms",
            "WEFT_LOG": "debug",
        }
        settings.update({k: str(v) for k, v in env.items()})
        self.process = subprocess.Popen([os.path.join(BUILD, "bin", "weft-proxy")], env={**os.environ, **settings},
                                        pass_fds=[fd], stderr=self.log_file)
        deadline = time.monotonic() + 10
        while "ready" not in self.log():
            assert self.process.poll() is None and time.monotonic() < deadline, self.log()
            time.sleep(0.01)

    def log(self):
        with open(os.path.join(self.run_dir, "log"), "rb") as f:
            return f.read().decode("utf-8", "replace")

    def connect(self, timeout=5):
        s = socket.create_connection(("127.0.0.1", self.port), timeout=timeout)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return s

    def url(self, path="/"):
        return "http://127.0.0.1:%d%s" % (self.port, path)

    def curl(self, *args, timeout=10):
        return subprocess.run(["curl", "-sS", "-m", str(timeout), *args], capture_output=True, text=True)

    def stop(self):
        """Drains; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(10)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self.socket.close()
            self.log_file.close()
            shutil.rmtree(self.run_dir, ignore_errors=True)


class Server:
    """Accepts connections and runs handler(socket, number) for each in a thread."""

    def __init__(self, handler):
        self.socket = listener()
        self.port = self.socket.getsockname()[1]
        self.accepted = 0
        self.errors = []
        threading.Thread(target=self._run, args=(handler,), daemon=True).start()

    def _run(self, handler):
        while True:
            try:
                c, _ = self.socket.accept()
            except OSError:
                return
            c.settimeout(10)
            self.accepted += 1
            threading.Thread(target=self._serve, args=(handler, c, self.accepted), daemon=True).start()

    def _serve(self, handler, c, number):
        try:
            handler(c, number)
        except Exception as e:  # shown by the test that looks
            self.errors.append(e)
        finally:
            c.close()

    def close(self):
        self.socket.close()


def read_until(s, mark, limit=1 << 20):
    data = b""
    while mark not in data:
        piece = s.recv(65536)
        assert piece, "closed after %r" % data[-200:]
        data += piece
        assert len(data) < limit
    return data


def read_all(s):
    data = b""
    while True:
        piece = s.recv(65536)
        if not piece:
            return data
        data += piece


def read_request(s):
    """(head, body) of one request with Content-Length or chunked content."""
    data = read_until(s, b"\r\n\r\n")
    head, rest = data.split(b"\r\n\r\n", 1)
    lower = head.lower()
    if b"transfer-encoding: chunked" in lower:
        while not rest.endswith(b"0\r\n\r\n"):
            rest += s.recv(65536)
        return head, rest
    for line in lower.split(b"\r\n"):
        if line.startswith(b"content-length:"):
            n = int(line.split(b":")[1])
            while len(rest) < n:
                rest += s.recv(65536)
    return head, rest
