"""The shop's front page: asks books and prices over HTTP, writes a line to the ledger over TCP.

Plain standard library. It knows names and ports, nothing of a mesh.
"""
import http.client
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

local = threading.local()


def ask(name, path):
    """GET over a connection that this thread keeps; one new connection if the kept one had ended."""
    for last_try in (False, True):
        conn = getattr(local, name, None)
        if conn is None:
            conn = http.client.HTTPConnection(name, 8080, timeout=10)
            setattr(local, name, conn)
        try:
            conn.request("GET", path)
            answer = conn.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            conn.close()
            setattr(local, name, None)
            if last_try:
                raise
    raise AssertionError


class Ledger:
    """One connection for the whole program. The server speaks first; every line gets an answer."""

    def __init__(self):
        self.lock = threading.Lock()
        self.file = None
        self.lines = 0

    def write(self, line):
        with self.lock:
            if self.file is None:
                sock = socket.create_connection(("ledger", 7000), timeout=10)
                self.file = sock.makefile("rwb")
                banner = self.file.readline()
                if not banner.startswith(b"LEDGER"):
                    raise OSError("not a ledger: %r" % banner)
            try:
                self.file.write(line.encode() + b"\n")
                self.file.flush()
                answer = self.file.readline()
                if not answer.startswith(b"ok"):
                    raise OSError("ledger said %r" % answer)
            except OSError:
                self.close()
                raise
            self.lines += 1
            if self.lines % 50 == 0:
                self.close()

    def close(self):
        try:
            self.file.close()
        except OSError:
            pass
        self.file = None


ledger = Ledger()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 16384  # head and body in one segment

    def answer(self, status, value):
        body = json.dumps(value).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        try:
            books_status, books = ask("books", "/list")
            prices_status, prices = ask("prices", "/price")
            if books_status != 200 or prices_status != 200:
                self.answer(502, {"books": books_status, "prices": prices_status})
                return
            ledger.write("seen %s" % self.path)
            self.answer(200, {"books": json.loads(books), "price": json.loads(prices)})
        except (OSError, http.client.HTTPException, ValueError) as e:
            self.answer(502, {"error": str(e)})

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


Server(("", 8080), Handler).serve_forever()
