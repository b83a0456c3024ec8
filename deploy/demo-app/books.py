"""A list of books that is not always to be had: about 4 of 100 answers are 503."""
import json
import random
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BOOKS = ["Flatland", "Walden", "Kim", "Emma"]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 16384  # head and body in one segment

    def do_GET(self):
        good = random.random() >= 0.04
        body = json.dumps(BOOKS if good else {"error": "the shelf is being dusted"}).encode()
        self.send_response(200 if good else 503)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


Server(("", 8080), Handler).serve_forever()
