"""Abuse of a proxy by raw sockets: python3 abuse.py NAME HOST PORT. Prints a line of JSON: what came of it. Bounded in
count and time. Run by test_abuse.py, inside a pod (through its outbound proxy) or outside of all (a stranger)."""
import json
import random
import socket
import ssl
import struct
import sys
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
RESET = struct.pack("ii", 1, 0)
GET = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"


def connect(host, port, window=None, timeout=10):
    s = socket.socket()
    s.settimeout(timeout)
    if window:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    s.connect((host, port))
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


def reset(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    s.close()


def read_all(s):
    """(bytes, how it ended)"""
    data = b""
    try:
        while True:
            piece = s.recv(65536)
            if not piece:
                return data, "end"
            data += piece
    except OSError as e:
        return data, type(e).__name__


# ---- HTTP/2 by hand ----

def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def literal(index, value):
    return bytes([index, len(value)]) + value


def request(stream, more=b"", flags=5):
    return frame(1, flags, stream, b"\x82\x86\x84" + literal(1, b"web") + more)


def bomb(stream):
    """16 KiB that decode to 48 MB: an entry of 3 KB, and references to it."""
    entry = b"\x40\x01x" + b"\x7f\xb9\x16" + b"a" * 3000  # literal with indexing, length 127 + 2873
    return frame(1, 5, stream, b"\x82\x86\x84" + literal(1, b"web") + entry + b"\xbe" * 13000)


FLOODS = {  # name: the i-th piece
    "rapid_reset": lambda i: request(2 * i + 1) + frame(3, 0, 2 * i + 1, b"\0\0\0\x08"),
    "made_you_reset": lambda i: request(2 * i + 1) + frame(8, 0, 2 * i + 1, b"\x7f\xff\xff\xff"),
    "ping": lambda i: frame(6, 0, 0, b"12345678"),
    "settings": lambda i: frame(4, 0, 0, b"\0\4\0\0\xff\xff"),
    "priority": lambda i: frame(2, 0, 2 * i + 1, b"\0\0\0\0\x01"),
    "window": lambda i: frame(8, 0, 0, b"\0\0\0\1"),
    "unknown": lambda i: frame(0xfe, 0, 0),
    "empty_data": lambda i: request(1, flags=4) if i == 0 else frame(0, 0, 1),
    "continuation": lambda i: frame(1, 0, 1, b"\x82") if i == 0 else frame(9, 0, 1),
    "header_bomb": lambda i: bomb(2 * i + 1),
    "crumbs": lambda i: request(2 * i + 1, b"\x0f\x11\x03a=b" * 1000),
    "streams": lambda i: request(2 * i + 1),
}


def flood(host, port, name):
    """At most 3000 pieces: the proxy ends the connection before."""
    s = connect(host, port, timeout=3)
    sent, error = 0, ""
    try:
        s.sendall(PREFACE + frame(4, 0, 0))
        for i in range(3000):
            s.sendall(FLOODS[name](i))
            sent += 1
    except OSError as e:
        error = type(e).__name__
    data, end = read_all(s)
    s.close()
    return {"sent": sent, "error": error, "end": end, "bytes": len(data)}


# ---- HTTP/1 and bytes ----

def resets(host, port):
    """Leaves at every byte of a request: by a reset, an end, half an end."""
    whole = (b"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n"
             b"5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n")
    halves = 0
    for k in range(len(whole) + 1):
        for how in (reset, socket.socket.close, None):
            s = connect(host, port)
            s.sendall(whole[:k])
            if k % 7 == 0:
                time.sleep(0.02)
            if how is not None:
                how(s)
                continue
            s.shutdown(socket.SHUT_WR)
            data, _ = read_all(s)
            halves += data.startswith(b"HTTP/1.1 200")
            s.close()
    return {"answered": halves}


def cuts(host, port):
    """The application breaks off after k bytes of its answer: what a client may take for whole, is."""
    seen = {}
    for k in range(75):
        s = connect(host, port)
        s.sendall(b"GET /cut%d HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n" % k)
        data, _ = read_all(s)
        s.close()
        head, _, body = data.partition(b"\r\n\r\n")
        kind = head[9:12].decode() or "none"
        if kind == "200":
            kind = "whole" if body == b"q" * 20 else "cut" if b"ength: 20" in head else "short"
        seen[kind] = seen.get(kind, 0) + 1
    return seen


def garbage(host, port):
    rnd = random.Random(1)
    shapes = [b"\x16\x03\x01\xff\xff\x01\xff\xff\xff", b"\x16\x03\x01\0\1\1" * 50, b"\0" * 70000,
              b"transport.l5d.io/v1\r\n\r\n\xff\xff\xff\xff", PREFACE + b"\xff\xff\xff\1\4\0\0\0\1",
              b"GET / HTTP/1.1\r\n\r\n", b"\x17\x03\x03\x40\x11" + b"a" * 20000]
    refused = 0
    for i in range(60):
        try:
            s = connect(host, port, timeout=3)
            s.sendall(shapes[i // 2 % len(shapes)] if i % 2 else
                      bytes(rnd.randrange(256) for _ in range(rnd.choice((1, 5, 100, 3000)))))
            if i % 3 == 0:
                reset(s)
            else:
                s.settimeout(0.02)
                read_all(s)
                s.close()
        except OSError:
            refused += 1
    return {"refused": refused}


def short(host, port):
    """Many connections that hardly say anything."""
    failed, begun, n = 0, time.monotonic(), 0
    while n < 3000 and time.monotonic() - begun < 10:
        n += 1
        try:
            s = connect(host, port)
            if n % 3 == 0:
                s.sendall(GET)
                s.recv(10)
            (reset if n % 2 else socket.socket.close)(s)
        except OSError:
            failed += 1
    return {"failed": failed}


def deaf(host, port):
    """Asks for much and reads nothing; then goes."""
    some = [connect(host, port, window=4096) for _ in range(30)]
    for s in some:
        s.sendall(b"GET /big HTTP/1.1\r\nHost: web\r\n\r\n")
    time.sleep(1.5)
    for i, s in enumerate(some):
        (reset if i % 2 else socket.socket.close)(s)
    return {}


def slow(host, port):
    """The last connection of its kind, read slowly: all of it comes, and its end."""
    s = connect(host, port, window=65536, timeout=30)
    s.sendall(b"GET /big HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
    data = s.recv(1000)
    time.sleep(6.5)  # longer than the proxy looks away
    more, end = read_all(s)
    return {"bytes": len((data + more).partition(b"\r\n\r\n")[2]), "end": end}


def pipelined(host, port):
    s = connect(host, port)
    s.sendall(GET * 63 + b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
    data, end = read_all(s)
    return {"answers": data.count(b"HTTP/1.1 200"), "end": end}


# ---- TLS as a stranger ----

def transport(host, port):
    """The transport header without a client certificate."""
    name = sys.argv[4]
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.check_hostname, c.verify_mode = False, ssl.CERT_NONE
    c.set_alpn_protocols(["transport.l5d.io/v1"])
    body = b"\x08\xdf\x20\x1a\x02\x0a\0"  # port 4191, session protocol http/1
    try:
        s = c.wrap_socket(connect(host, port, timeout=5), server_hostname=name)
        s.sendall(b"transport.l5d.io/v1\r\n\r\n" + struct.pack(">I", len(body)) + body + GET)
        data, end = read_all(s)
    except OSError as e:
        data, end = b"", type(e).__name__
    return {"bytes": len(data), "end": end}


def main():
    name, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    print(json.dumps(flood(host, port, name) if name in FLOODS else globals()[name](host, port)))


if __name__ == "__main__":
    main()
