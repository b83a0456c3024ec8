"""A ledger over plain TCP. The server speaks first: a banner, then one "ok NUMBER" per line."""
import itertools
import socketserver

numbers = itertools.count(1)


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b"LEDGER 1 ready\n")
        for line in self.rfile:
            if line.strip() == b"quit":
                return
            self.wfile.write(b"ok %d\n" % next(numbers))


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


Server(("", 7000), Handler).serve_forever()
