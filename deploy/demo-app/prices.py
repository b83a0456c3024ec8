"""A price, after a while: prices.py MILLISECONDS."""
import json
import random
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DELAY = float(sys.argv[1] if len(sys.argv) > 1 else 2) / 1000


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 16384  # head and body in one segment

    def do_GET(self):
        time.sleep(DELAY * random.uniform(0.5, 1.5))
        body = json.dumps({"pence": random.randint(300, 900)}).encode()
        self.send_response(200)
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
