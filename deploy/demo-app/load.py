"""Visitors: load.py REQUESTS_PER_SECOND. Each keeps its connection, as browsers do."""
import http.client
import random
import sys
import threading
import time

RATE = float(sys.argv[1] if len(sys.argv) > 1 else 40)
VISITORS = 8


def visit(gap):
    conn = None
    next_at = time.monotonic() + random.random() * gap
    while True:
        time.sleep(max(0.0, next_at - time.monotonic()))
        next_at = max(next_at + gap, time.monotonic() - gap)
        try:
            if conn is None:
                conn = http.client.HTTPConnection("web", 8080, timeout=15)
            conn.request("GET", "/page/%d" % random.randint(1, 20))
            conn.getresponse().read()
        except (OSError, http.client.HTTPException):
            if conn is not None:
                conn.close()
            conn = None


threads = [threading.Thread(target=visit, args=(VISITORS / RATE,), daemon=True)
           for _ in range(VISITORS)]
for t in threads:
    t.start()
for t in threads:
    t.join()
