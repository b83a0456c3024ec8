"""Every shape of bad HTTP/1 that two readers may understand differently, sent raw into the mesh; a recorder behind it tells
what came through. Then the same bytes through HAProxy and nginx: what both of them take and we refuse is listed here, with
the reason. The ids are those of the catalogue the shapes were collected in: H1-01 .. H1-36."""
import os
import select
import shutil
import socket
import subprocess
import tempfile
import textwrap
import time

import pytest

from meshes import AT_ONCE, SLOW, wait_for
from raw_http import Ended, Recorder, Stream, address_of, ask, connect, is_closed, listen, plain, pod_address, read_answer

pytestmark = pytest.mark.asan

# Rides behind every shape that is refused: whoever reads the shape in another way than we do makes a request of it.
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: web\r\nX-S: 1\r\n\r\n"


class Shape:
    def __init__(self, number, name, data, want, check=None, may_close=False):
        self.number, self.name, self.data, self.want, self.check = number, name, data, want, check
        self.may_close = may_close

    @property
    def id(self):
        return "H1-%02d %s" % (self.number, self.name)

    @property
    def is_refused(self):
        return self.want != 200

    @property
    def is_no_http(self):
        """Detection, where nothing is known beforehand, does not take it for HTTP: its connection is passed on as it is."""
        return self.number == 21 and self.name == "target b'?x'" or \
            self.number == 20 and self.is_refused or \
            self.number == 19 and self.name.split("'")[1:2] in (["http/1.1"], ["HTTP /1.1"], ["HTTPS/1.1"], []) and self.is_refused


SHAPES = []


def refused(number, name, data, want=400, smuggle=True):
    SHAPES.append(Shape(number, name, data + (SMUGGLED if smuggle else b""), want))


def taken(number, name, data, check=None, may_close=False):
    SHAPES.append(Shape(number, name, data, 200, check or (lambda m: True), may_close))


def post(lines, content=b"", start=b"POST /x HTTP/1.1", host=b"Host: web\r\n"):
    return start + b"\r\n" + host + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + content


def get(*lines, target=b"/x", version=b"HTTP/1.1", method=b"GET", host=b"Host: web\r\n"):
    return method + b" " + target + b" " + version + b"\r\n" + host + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def chunked(content, *lines):
    return post([b"Transfer-Encoding: chunked", *lines], content)


def has(name, *values):
    return lambda m: m.all(name) == list(values)


def content(want):
    return lambda m: m.content == want


CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"
TE, CL = b"Transfer-Encoding: chunked", b"Content-Length: 5"

refused(1, "CL and TE", post([CL, TE], b"0\r\n\r\n"))
refused(1, "TE and CL", post([TE, CL], CHUNKS))
refused(1, "CL 0 and TE", post([b"Content-Length: 0", TE], b""))
refused(2, "two CL, different", post([CL, b"Content-Length: 6"], b"hello"))
refused(2, "two CL, different, 0", post([b"Content-Length: 0", CL], b"hello"))
refused(3, "two CL, same", post([CL, CL], b"hello"))
refused(3, "CL list", post([b"Content-Length: 5, 5"], b"hello"))
for value in (b"+5", b"-5", b"0x5", b"5_0", b"5e0", b"5.0", b"5 0", b"", b"18446744073709551621", b"9223372036854775808", b"5,",
              b"\xd9\xa5", b"\x0b5", b"5;", b"\"5\"", b"five"):
    refused(4, "CL %r" % value, post([b"Content-Length: " + value], b"hello"))
taken(5, "CL 005", post([b"Content-Length: 005"], b"hello"), lambda m: has("content-length", "5")(m) and m.content == b"hello")
taken(5, "CL of 19 digits", post([b"Content-Length: 0000000000000000005"], b"hello"), has("content-length", "5"))
refused(5, "CL of 20 digits", post([b"Content-Length: 00000000000000000005"], b"hello"))
for value in (b"xchunked", b"\"chunked\"", b"identity", b"chunked, identity", b",chunked", b"chunked,", b"\x0bchunked", b"chunked\x0c",
              b"\x85chunked", b"\xa0chunked", b"chunked;q=1", b"chunked chunked", b"", b"chunke", b"chunked, chunked"):
    refused(6, "TE %r" % value, post([b"Transfer-Encoding: " + value], CHUNKS))
refused(6, "TE gzip, chunked", post([b"Transfer-Encoding: gzip, chunked"], CHUNKS), 501)
refused(6, "TE gzip", post([b"Transfer-Encoding: gzip"], CHUNKS), 501)
taken(6, "TE CHUNKED", post([b"Transfer-Encoding: CHUNKED"], CHUNKS), content(b"hello"))
taken(6, "TE with blanks around", post([b"Transfer-Encoding:\t chunked \t"], CHUNKS), content(b"hello"))
refused(7, "TE twice", post([TE, TE], CHUNKS))
refused(7, "TE chunked and identity", post([TE, b"Transfer-Encoding: identity"], CHUNKS))
refused(7, "TE identity and chunked", post([b"Transfer-Encoding: identity", TE], CHUNKS))
refused(8, "TE in HTTP/1.0", post([TE], CHUNKS, b"POST /x HTTP/1.0"))
refused(8, "TE in HTTP/1.0, kept", post([TE, b"Connection: keep-alive"], CHUNKS, b"POST /x HTTP/1.0"))
refused(9, "blank before the colon of TE", post([b"Transfer-Encoding : chunked"], CHUNKS))
refused(9, "tab before the colon of CL", post([b"Content-Length\t: 5"], b"hello"))
refused(9, "blank before the colon of Host", get(host=b"Host : web\r\n"))
refused(9, "blank in a name", get(b"X Y: 1"))
refused(9, "0x85 behind TE", post([b"Transfer-Encoding\x85: chunked"], CHUNKS))
for name, line in (("plain", b"X-A: a\r\n b"), ("tab", b"X-A: a\r\n\tb"), ("TE", b"Transfer-Encoding:\r\n chunked"),
                   ("CL", b"Content-Length:\r\n 5"), ("Host", b"Host:\r\n web"), ("last", b"X-A: a\r\n ")):
    refused(10, "folded, " + name, post([line], CHUNKS, host=b"" if name == "Host" else b"Host: web\r\n"))
for value in (b"a\0b", b"a\rb", b"a\x01b", b"a\x7fb", b"a\x0bb", b"a\r", b"\0", b"a\x1b[2J", b"a\x08"):
    refused(11, "value %r" % value, get(b"X-A: " + value))
taken(11, "value with 0x80 and more", get(b"X-A: \xe9\xff"))
taken(11, "value with a tab", get(b"X-A: a\tb"), has("x-a", "a\tb"))
refused(12, "bare LF, all lines", b"GET /x HTTP/1.1\nHost: web\n\n")
refused(12, "bare LF, one line", b"GET /x HTTP/1.1\r\nHost: web\nX-A: 1\r\n\r\n")
refused(12, "bare LF, request line", b"GET /x HTTP/1.1\nHost: web\r\n\r\n")
refused(12, "bare LF, end of the head", b"GET /x HTTP/1.1\r\nHost: web\r\n\n")
refused(12, "bare LF before TE", post([b"X-A: 1\nTransfer-Encoding: chunked"], CHUNKS))
refused(13, "no colon", get(b"NoColon"))
refused(13, "no colon, a blank", get(b"No Colon"))
refused(14, "empty name", get(b": x"))
refused(14, "empty name of TE", post([b":Transfer-Encoding: chunked"], CHUNKS))
refused(14, "first field begins with a blank", get(host=b" Host: web\r\nHost: web\r\n"))
refused(14, "first field begins with a tab", get(host=b"\tX: y\r\nHost: web\r\n"))
for name in (b"X\xe9", b"X(", b"X\"y", b"X/y", b"X@", b"X\x7f", b"X\x01", b"X[", b"X{", b"X=", b"X,", b"X;", b"X?", b"X<"):
    refused(15, "name %r" % name, get(name + b": 1"))
taken(15, "every other byte in a name", get(b"X!#$%&'*+-.^_`|~9: 1"), has("X!#$%&'*+-.^_`|~9", "1"))
refused(16, "Transfer_Encoding", post([b"Transfer_Encoding: chunked", CL], b"hello"))
refused(16, "Content_Length", post([b"Content_Length: 9", CL], b"hello"))
taken(16, "other names with an underscore", get(b"X_Y: 1"), has("x_y", "1"))
refused(17, "no Host", get(host=b""))
refused(17, "two Hosts", get(b"Host: evil"))
refused(17, "two Hosts, same", get(b"Host: web"))
for value in (b"a@b", b"a/b", b"a b", b"web:x", b"web:99999", b"[::1", b"a#b", b"a?b", b"a\\b", b"[::1]x", b":80", b"web:80:80"):
    refused(17, "Host %r" % value, get(host=b"Host: " + value + b"\r\n"))
refused(17, "empty Host and an absolute target", get(target=b"http://web/x", host=b"Host:\r\n"))
taken(17, "Host with a port", get(host=b"Host: web:8080\r\n"), has("host", "web:8080"))
taken(17, "Host with sub-delims", get(host=b"Host: a,b;c\r\n"), has("host", "a,b;c"))
taken(17, "Host of an address", get(host=b"Host: [::1]:80\r\n"), has("host", "[::1]:80"))
refused(18, "Host against an absolute target", get(target=b"http://evil/x"))
taken(18, "absolute target", get(target=b"http://web/x"), lambda m: m.line == "GET http://web/x HTTP/1.1")
taken(18, "absolute target, other case", get(target=b"HTTP://WEB/x"), has("host", "WEB"))
refused(18, "absolute target with a user", get(target=b"http://user@web/x"))
refused(18, "other scheme", get(target=b"ftp://web/x"))
for version, want in ((b"HTTP/1.2", 505), (b"HTTP/2.0", 505), (b"HTTP/3.0", 505), (b"http/1.1", 400), (b"HTTP/1.1x", 400),
                      (b"HTTP/1", 400), (b"HTTP/01.1", 400), (b"HTTP/1.10", 400), (b"HTTP/0.9", 400), (b"HTTP/1.1 ", 400),
                      (b"HTTP/1,1", 400), (b"HTTP /1.1", 400), (b"HTTPS/1.1", 400), (b"HTTP/1.1\x0b", 400)):
    refused(19, "version %r" % version, get(version=version), want)
refused(19, "no version", b"GET /x\r\n")
refused(20, "method with a paren", get(method=b"G(T"))
refused(20, "method with a NUL", get(method=b"G\0T"))
refused(20, "blank before the method", get(method=b" GET"))
refused(20, "two blanks", get(target=b" /x"))
refused(20, "tab for a blank", b"GET\t/x\tHTTP/1.1\r\nHost: web\r\n\r\n")
refused(20, "method of 33 bytes", get(method=b"M" * 33), 501)
taken(20, "method of 32 bytes", get(method=b"M" * 32))
taken(20, "method in lower case", get(method=b"get"), lambda m: m.line == "get /x HTTP/1.1")
for target in (b"/a b", b"/a\0b", b"/a\x01", b"/#frag", b"/\xff", b"/\x7f", b"x", b"/a\tb", b"?x", b"//web/x#", b"http:/x", b"http://"):
    refused(21, "target %r" % target, get(target=target))
for target in (b"//x", b"/%00", b"/..%2f..;/x?a=b&c[]=d", b"/\"<>\\^`{|}"):
    taken(21, "target %r" % target, get(target=target), lambda m, t=target: m.line == "GET %s HTTP/1.1" % t.decode())
taken(22, "OPTIONS *", get(target=b"*", method=b"OPTIONS"), lambda m: m.line == "OPTIONS * HTTP/1.1")
refused(22, "GET *", get(target=b"*"))
refused(22, "OPTIONS */x", get(target=b"*/x", method=b"OPTIONS"))
for size in (b"", b"-5", b"0x5", b"5 ", b" 5", b"5_0", b"0" * 16 + b"5", b"ffffffffffffffff", b"8000000000000000", b"5\t", b"+5", b"5,", b"g",
             b"5\0", b"5\r"):
    refused(23, "chunk size %r" % size, chunked(size + b"\r\nhello\r\n0\r\n\r\n"))
taken(23, "chunk size of 16 digits", chunked(b"0" * 15 + b"5\r\nhello\r\n0\r\n\r\n"), content(b"hello"))
taken(23, "chunk sizes in both cases", chunked(b"a\r\n0123456789\r\nB\r\n0123456789a\r\n000\r\n\r\n"), content(b"01234567890123456789a"))
refused(24, "LF behind a chunk size", chunked(b"5\nhello\r\n0\r\n\r\n"))
refused(24, "LF behind chunk data", chunked(b"5\r\nhello\n0\r\n\r\n"))
refused(24, "LF behind the last chunk", chunked(b"5\r\nhello\r\n0\n\n"))
refused(24, "other bytes behind chunk data", chunked(b"5\r\nhelloXX0\r\n\r\n"))
refused(24, "nothing behind chunk data", chunked(b"5\r\nhello0\r\n\r\n"))
refused(24, "CR alone behind chunk data", chunked(b"5\r\nhello\r0\r\n\r\n"))
refused(25, "LF in an extension", chunked(b"5;a\nhello\r\n0\r\n\r\n"))
refused(25, "CR in an extension", chunked(b"5;a\rb\r\nhello\r\n0\r\n\r\n"))
refused(25, "LF in a quoted extension", chunked(b"5;a=\"\n\"\r\nhello\r\n0\r\n\r\n"))
refused(25, "quote without an end", chunked(b"5;a=\"b\r\nhello\r\n0\r\n\r\n"))
refused(25, "extension over 1 KiB", chunked(b"5;" + b"a" * 1100 + b"\r\nhello\r\n0\r\n\r\n"))
refused(25, "extensions over 16 KiB", chunked((b"1;" + b"a" * 1000 + b"\r\nx\r\n") * 17 + b"0\r\n\r\n"))
taken(25, "extensions", chunked(b"5;a=b;c=\"d;\\\"e\"\r\nhello\r\n0;last\r\n\r\n"), content(b"hello"))
taken(26, "trailers that may not be", chunked(
    b"5\r\nhello\r\n0\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\nHost: evil\r\nAuthorization: x\r\nl5d-client-id: evil\r\n"
    b"Weft-Case: C\r\nX-Sum: 1\r\n\r\n", b"TE: trailers", b"Connection: TE"), lambda m: m.trailers == ["X-Sum: 1"] and m.content == b"hello")
refused(26, "LF in a trailer", chunked(b"0\r\nX-Sum: 1\n\r\n"))
refused(26, "trailer without a colon", chunked(b"0\r\nX-Sum\r\n\r\n"))
refused(26, "folded trailer", chunked(b"0\r\nX-Sum: 1\r\n 2\r\n\r\n"))
refused(26, "trailer with a NUL", chunked(b"0\r\nX-Sum: a\0b\r\n\r\n"))
refused(27, "201 fields", get(*[b"X-%d: 1" % i for i in range(200)]), 431)
taken(27, "200 fields", get(*[b"X-%d: 1" % i for i in range(199)]), lambda m: m.get("x-198") == "1")
refused(27, "request line over 8 KiB", get(target=b"/" + b"a" * 8200), 414)
taken(27, "request line of 8 KiB", get(target=b"/" + b"a" * 8100))
refused(27, "field over 16 KiB", get(b"X-Big: " + b"a" * 16500), 431)
taken(27, "field of 15 KiB", get(b"X-Big: " + b"a" * 15360), lambda m: len(m.get("x-big")) == 15360)
refused(27, "head over 64 KiB", get(*[b"X-%d: " % i + b"a" * 10000 for i in range(7)]), 431)
taken(27, "head of 60 KiB", get(*[b"X-%d: " % i + b"a" * 10000 for i in range(6)]), lambda m: len(m.get("x-5")) == 10000)
for method in (b"GET", b"DELETE", b"OPTIONS", b"TRACE"):
    taken(29, "%s with content" % method.decode(), post([CL], b"hello", method + b" /x HTTP/1.1"), content(b"hello"))
refused(29, "CONNECT with CL", get(CL, target=b"web:8080", method=b"CONNECT", host=b"Host: web:8080\r\n") + b"hello")
refused(29, "CONNECT with TE", get(TE, target=b"web:8080", method=b"CONNECT", host=b"Host: web:8080\r\n") + CHUNKS)
refused(29, "CONNECT without a port", get(target=b"web", method=b"CONNECT"))
refused(29, "CONNECT with a path", get(method=b"CONNECT"))
for value in (b"x 100-continue", b"garbage", b"100-continue, x", b"100-continue\x0b"):
    refused(30, "Expect %r" % value, post([b"Expect: " + value, CL], b"hello"), 400 if b"\x0b" in value else 417)
taken(30, "Expect: 100-Continue", post([b"Expect: 100-Continue", CL], b"hello"), content(b"hello"))
taken(34, "Connection names what it may and what it may not", post(
    [b"Connection: X-Id, host, content-length, authorization, te, trailer, forwarded, :path, x-other", b"X-Id: 1", b"Authorization: a",
     b"Forwarded: for=1", b"X-Other: 2", b"X-Stays: 3", CL], b"hello"),
    lambda m: not m.get("x-id") and not m.get("x-other") and m.get("host") == "web" and m.get("authorization") == "a" and
    m.get("forwarded") == "for=1" and m.get("x-stays") == "3" and m.content == b"hello")
taken(34, "hop-by-hop fields", get(b"Keep-Alive: timeout=5", b"Proxy-Connection: keep-alive", b"Connection: keep-alive"),
      lambda m: not m.get("keep-alive") and not m.get("proxy-connection"))
taken(35, "fields of the mesh", get(b"l5d-client-id: evil", b"L5D_Client_Id: evil", b"weft-delivered: no", b"Weft_Attempt: 3", b"l5d.x: 1",
                                    b"L5d-Dst-Override: evil:80", b"l5d-orig-proto: HTTP/1.0", b"x-l5d: 1", b"weftx: 1"),
      lambda m: "evil" not in repr(m.lines) and m.line == "GET /x HTTP/1.1" and m.get("x-l5d") == "1" and m.get("weftx") == "1" and
      not [n for n in m.names() if n.lower().startswith("weft-") or n.lower().startswith("weft_")])
taken(36, "Upgrade: h2c", get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__"),
      lambda m: not m.get("upgrade") and not m.get("http2-settings"))
taken(36, "Upgrade: websocket, h2c", get(b"Connection: Upgrade", b"Upgrade: websocket, h2c"), lambda m: not m.get("upgrade"))
taken(36, "Upgrade without Connection", get(b"Upgrade: websocket"), lambda m: not m.get("upgrade"))
taken(36, "Upgrade to websocket with a bad key, refused", get(b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: bad"),
      has("upgrade", "websocket"), may_close=True)

# What HAProxy and nginx both take and Weft refuses, and why. Everything else that both take passes.
LF = "a bare LF: RFC 9112 2.2 allows, it does not ask to take it; readers that do not have been desynchronised with it"
CTL = "a control byte: RFC 9110 5.5 makes it an error or a blank, so that readers differ; it forges lines of logs and terminals"
DEVIATIONS = {
    "H1-05 CL of 20 digits": "over what fits 64 bits in general; readers that overflow do not agree",
    "H1-11 value b'a\\x01b'": CTL,
    "H1-11 value b'a\\x7fb'": CTL,
    "H1-11 value b'a\\x0bb'": CTL,
    "H1-11 value b'a\\x1b[2J'": CTL,
    "H1-11 value b'a\\x08'": CTL,
    "H1-12 bare LF before TE": LF,
    "H1-18 other scheme": "nobody here speaks anything but http and https: there is no telling where it should go",
    "H1-20 two blanks": "RFC 9112 3: one blank; what stands between two is a target to some readers",
    "H1-23 chunk size b'00000000000000005'": "over what fits 64 bits in general; readers that overflow do not agree",
    "H1-25 LF in an extension": LF,
    "H1-30 Expect b'100-continue\\x0b'": CTL,
    "H1-12 bare LF, all lines": LF,
    "H1-12 bare LF, one line": LF,
    "H1-12 bare LF, request line": LF,
    "H1-12 bare LF, end of the head": LF,
    "H1-16 Transfer_Encoding": "CGI and WSGI servers cannot tell it from Transfer-Encoding",
    "H1-16 Content_Length": "CGI and WSGI servers cannot tell it from Content-Length",
    "H1-17 Host b'a@b'": "RFC 9110 4.2.4: userinfo is an error; readers differ in which half is the host",
    "H1-17 Host b'a?b'": "no host of RFC 3986: a query to some readers",
    "H1-17 Host b'a\\\\b'": "no host of RFC 3986: a path to some readers",
    "H1-17 Host b'web:x'": "no port: readers fall back to different ones",
    "H1-17 Host b'web:99999'": "no port: readers fall back to different ones",
    "H1-17 Host b'web:80:80'": "two ports",
    "H1-17 Host b'[::1]x'": "no host of RFC 3986",
    "H1-17 Host b'[::1'": "no host of RFC 3986",
    "H1-17 Host b'a#b'": "no host of RFC 3986: a fragment to some readers",
    "H1-19 version b'HTTP/1.2'": "there is no HTTP/1.2; the answer (505) says so",
    "H1-20 method of 33 bytes": "no method is that long; 501",
    "H1-23 chunk size b'5 '": "RFC 9112 7.1 has no blank there; it was an input to several desynchronisations",
    "H1-23 chunk size b'5\\t'": "RFC 9112 7.1 has no blank there; it was an input to several desynchronisations",
    "H1-24 LF behind a chunk size": LF,
    "H1-24 LF behind chunk data": LF,
    "H1-24 LF behind the last chunk": LF,
    "H1-25 extension over 1 KiB": "nobody uses extensions, and they cost their reader time: CVE-2023-39326",
    "H1-25 extensions over 16 KiB": "nobody uses extensions, and they cost their reader time: CVE-2023-39326",
    "H1-25 quote without an end": "where it ends is told differently by readers that know quotes and those that do not",
    "H1-26 LF in a trailer": LF,
    "H1-26 folded trailer": "RFC 9112 5.2: folding is obsolete, and unfolding is done differently",
    "H1-26 trailer with a NUL": "RFC 9110 5.5: not a value",
    "H1-30 Expect b'x 100-continue'": "RFC 9110 10.1.1: an expectation that is not met is 417",
    "H1-30 Expect b'garbage'": "RFC 9110 10.1.1: an expectation that is not met is 417",
    "H1-30 Expect b'100-continue, x'": "RFC 9110 10.1.1: an expectation that is not met is 417",
}


@pytest.fixture(scope="module")
def pods(shared_mesh):
    web = shared_mesh.run("web", ["sleep", "100000"], ports=["8080/http1"], env=AT_ONCE)
    client = shared_mesh.client()
    recorder = Recorder(web, 8080)
    wait_for(lambda: client.http("http://web:8080/").status == 200, "web serves")
    yield shared_mesh, client, web, recorder
    recorder.close()
    for app in (web, client):
        log = app.log()
        for bad in ("AddressSanitizer", "LeakSanitizer", "runtime error", " bug "):
            assert bad not in log, log[-3000:]


class Door:
    def __init__(self, connect, recorder, detects):
        self.connect, self.recorder, self.detects = connect, recorder, detects

    def __iter__(self):
        return iter((self.connect, self.recorder))


@pytest.fixture(params=["outbound", "inbound"])
def door(request, pods):
    """(connect(), recorder): the client's proxy of a pair, or the server's proxy as somebody outside of the mesh sees it."""
    mesh, client, web, recorder = pods
    recorder.reset()
    if request.param == "outbound":
        return Door(lambda: connect(client, address_of(mesh, "web"), 8080), recorder, False)
    return Door(lambda: connect(None, pod_address(web), 8080), recorder, True)


def send(s, data):
    """All of it, also when the other end refuses half-way and closes."""
    try:
        s.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        pass


def marker(open_one, recorder, tag):
    """A request of somebody else: it gets its own answer, and arrives as it was sent."""
    with open_one() as s:
        m = ask(s, b"GET /marker-%s HTTP/1.1\r\nHost: web\r\n\r\n" % tag)
    assert m.status == 200 and m.content == b"GET /marker-%s HTTP/1.1 " % tag
    assert recorder.requests[-1].line == "GET /marker-%s HTTP/1.1" % tag.decode()


def number(shape):
    return b"%d" % SHAPES.index(shape)


def passed_as_it_is(open_one, recorder, shape):
    """The application sees every byte, on a connection that carries nothing of anybody else."""
    with open_one() as s:
        send(s, shape.data)
        wait_for(lambda: shape.data in recorder.bytes.values(), "every byte at the application")
        marker(open_one, recorder, number(shape))
        assert shape.data in recorder.bytes.values()


@pytest.mark.parametrize("shape", [s for s in SHAPES if s.is_refused], ids=lambda s: s.id)
def test_refused(door, shape):
    open_one, recorder = door
    if door.detects and shape.is_no_http:
        passed_as_it_is(open_one, recorder, shape)
        return
    with open_one() as s:
        send(s, shape.data)
        m = read_answer(Stream(s))
        assert m.status == shape.want, m
        assert m.get("connection") == "close" and m.get("weft-code") and m.get("proxy-status"), m
        assert is_closed(s)
    assert not recorder.broken
    seen = b"".join(recorder.bytes.values())
    assert b"smuggled" not in seen
    # The head of a request with a bad body may have gone on before the body was read; it never ends, so it is none.
    assert not recorder.requests or shape.number in (23, 24, 25, 26) and not recorder.requests[0].content, recorder.requests
    marker(open_one, recorder, number(shape))


@pytest.mark.parametrize("shape", [s for s in SHAPES if not s.is_refused], ids=lambda s: s.id)
def test_taken(door, shape):
    open_one, recorder = door
    with open_one() as s:
        st = Stream(s)
        send(s, shape.data)
        m = read_answer(st, shape.data.split(b" ")[0].decode())
        assert m.status == 200 and not m.get("weft-code"), m
        assert len(recorder.requests) == 1 and not recorder.broken, (recorder.requests, recorder.broken)
        got = recorder.requests[0]
        assert shape.check(got), got
        assert len(got.all("host")) == 1
        if not shape.may_close and m.get("connection") != "close":
            send(s, get(target=b"/after"))
            assert read_answer(st).content == b"GET /after HTTP/1.1 "
            assert [r.line for r in recorder.requests[1:]] == ["GET /after HTTP/1.1"]
    marker(open_one, recorder, number(shape))


@pytest.mark.parametrize("shape", [s for s in SHAPES if s.number in (1, 6, 11, 12, 17, 23, 24, 25, 29)], ids=lambda s: s.id)
def test_byte_by_byte(door, shape):
    """Where the pieces of the network end changes nothing."""
    open_one, recorder = door
    if len(shape.data) > 1000:
        return
    with open_one() as s:
        for i in range(len(shape.data)):
            send(s, shape.data[i:i + 1])
        m = read_answer(Stream(s), shape.data.split(b" ")[0].decode())
        assert m.status == shape.want, m
    assert b"smuggled" not in b"".join(recorder.bytes.values()) and not recorder.broken


def test_h1_28_sixty_four_in_one_packet(door):
    open_one, recorder = door
    with open_one() as s:
        s.sendall(b"".join(get(target=b"/%d" % i) if i % 3 else post([CL], b"%05d" % i, b"POST /%d HTTP/1.1" % i) for i in range(64)))
        st = Stream(s)
        for i in range(64):
            want = b"GET /%d HTTP/1.1 " % i if i % 3 else b"POST /%d HTTP/1.1 %05d" % (i, i)
            assert read_answer(st).content == want
    assert [m.line.split()[1] for m in recorder.requests] == ["/%d" % i for i in range(64)]


def test_h1_28_a_refusal_behind_good_ones(door):
    """Requests before a bad one are answered, in order; nothing behind it is read."""
    open_one, recorder = door
    with open_one() as s:
        s.sendall(get(target=b"/1") + get(target=b"/2") + post([CL, TE], b"0\r\n\r\n") + SMUGGLED)
        st = Stream(s)
        assert [read_answer(st).status for _ in range(3)] == [200, 200, 400]
        assert is_closed(s)
    assert [m.line for m in recorder.requests] == ["GET /1 HTTP/1.1", "GET /2 HTTP/1.1"]


# ---- answers ----

BAD_ANSWERS = [
    (32, "two CL", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc"),
    (32, "two CL, same", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab"),
    (32, "CL list", b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nab"),
    (32, "CL and TE", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"),
    (32, "CL -1", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nab"),
    (32, "TE gzip", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    (32, "TE xchunked", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    (32, "TE in HTTP/1.0", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"),
    (32, "1xx flood", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 11 + plain()),
    (32, "1xx with content", b"HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\nhello" + plain()),
    (32, "204 with content", b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello"),
    (32, "204 chunked", b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    (32, "101 not asked for", b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nraw bytes"),
    (32, "bare LF", b"HTTP/1.1 200 OK\nContent-Length: 2\n\nab"),
    (32, "folded", b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nab"),
    (32, "NUL", b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nab"),
    (32, "no colon", b"HTTP/1.1 200 OK\r\nNoColon\r\nContent-Length: 2\r\n\r\nab"),
    (32, "blank before the colon", b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nab"),
    (32, "no HTTP", b"220 smtp ready\r\n\r\n"),
    (32, "HTTP/2.0", b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nab"),
    (32, "status of two digits", b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nab"),
    (32, "status 099", b"HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nab"),
    (32, "field over the limit", b"HTTP/1.1 200 OK\r\nX-Big: " + b"a" * 17000 + b"\r\nContent-Length: 2\r\n\r\nab"),
    (32, "201 fields", b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 201 + b"Content-Length: 2\r\n\r\nab"),
]
STRAYS = [  # the answer is good, what follows it belongs to nothing
    (32, "bytes behind CL", "GET", plain(b"ab") + b"stray"),
    (32, "an answer behind the answer", "GET", plain(b"ab") + plain(b"evil")),
    (32, "bytes behind chunks", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n" + plain(b"evil")),
    (32, "bytes behind 204", "GET", b"HTTP/1.1 204 No Content\r\n\r\n" + plain(b"evil")),
    (33, "HEAD with content", "HEAD", plain(b"evil answer")),
    (33, "HEAD with an answer as content", "HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 44\r\n\r\n" + plain(b"evil")),
    (33, "304 with content", "GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nevil"),
]


def answering(shape):
    def answer(recorder, m, st, c):
        if m.line.split()[1].startswith("/marker"):
            return Recorder.echo(recorder, m, st, c)
        c.sendall(shape)
        return True
    return answer


@pytest.mark.parametrize("shape", BAD_ANSWERS, ids=lambda s: "H1-%02d %s" % s[:2])
def test_bad_answers(door, shape):
    open_one, recorder = door
    recorder.answer = answering(shape[2])
    try:
        with open_one() as s:
            m = ask(s, post([], b"", b"POST /x HTTP/1.1"), "POST")
            assert m.status == 502 and m.get("weft-code") in ("W2006", "W2007"), m
        for i in range(2):
            marker(open_one, recorder, b"%d" % i)
        assert len([m for m in recorder.requests if m.line.startswith("POST")]) == 1, "asked once"
    finally:
        recorder.answer = Recorder.echo


@pytest.mark.parametrize("shape", STRAYS, ids=lambda s: "H1-%02d %s" % s[:2])
def test_stray_bytes_are_nobodys_answer(door, shape):
    _, _, method, data = shape
    open_one, recorder = door
    recorder.answer = answering(data)
    try:
        for i in range(3):
            with open_one() as s, open_one() as other:
                m = ask(s, get(method=method.encode()), method)
                assert m.status == int(data.split()[1]) and b"evil" not in m.content
                m = ask(other, get(target=b"/marker-%d" % i))
                assert m.content == b"GET /marker-%d HTTP/1.1 " % i
                m = ask(s, get(target=b"/marker-again"))
                assert m.content == b"GET /marker-again HTTP/1.1 "
    finally:
        recorder.answer = Recorder.echo


# ---- the others ----

HAPROXY = '''
global
    maxconn 200
defaults
    mode http
    timeout connect 5s
    timeout client 5s
    timeout server 5s
frontend f
    bind 127.0.0.1:%(port)d
    default_backend b
backend b
    server s 127.0.0.1:%(origin)d
'''

NGINX = '''
daemon off;
worker_processes 1;
pid %(dir)s/pid;
error_log %(dir)s/error.log;
events { worker_connections 256; }
http {
    access_log off;
    client_body_temp_path %(dir)s/body;
    proxy_temp_path %(dir)s/proxy;
    fastcgi_temp_path %(dir)s/fcgi;
    uwsgi_temp_path %(dir)s/uwsgi;
    scgi_temp_path %(dir)s/scgi;
    server {
        listen 127.0.0.1:%(port)d;
        location / {
            proxy_pass http://127.0.0.1:%(origin)d;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }
    }
}
'''


def free_port():
    s = socket.socket()
    s.bind(("127.0.0.1", 0))
    port = s.getsockname()[1]
    s.close()
    return port


class Other:
    """HAProxy or nginx in front of a recorder of its own."""

    def __init__(self, name, config, command):
        self.name, self.dir = name, tempfile.mkdtemp(prefix="wtd")
        os.chmod(self.dir, 0o777)
        origin, self.port = free_port(), free_port()
        self.recorder = Recorder(None, origin, host="127.0.0.1")
        path = os.path.join(self.dir, "conf")
        with open(path, "w") as f:
            f.write(textwrap.dedent(config) % {"port": self.port, "origin": origin, "dir": self.dir})
        self.process = subprocess.Popen([*command, path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda: self.takes(get()), name + " serves")

    def takes(self, data):
        """Whether the bytes were answered with 200 by the recorder, which got one request of them."""
        self.recorder.reset()
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as s:
                send(s, data)
                m = read_answer(Stream(s), data.split(b" ")[0].decode("latin-1"))
        except (OSError, Ended, ValueError, AssertionError, IndexError):
            return False
        return m.status == 200 and len(self.recorder.requests) >= 1

    def stop(self):
        self.process.terminate()
        self.process.wait(10)
        self.recorder.close()
        shutil.rmtree(self.dir, ignore_errors=True)


def test_nothing_is_refused_that_the_others_take():
    """What both of HAProxy and nginx take, and we do not, has a reason in DEVIATIONS."""
    others = []
    try:
        others.append(Other("haproxy", HAPROXY, ["haproxy", "-db", "-f"]))
        others.append(Other("nginx", NGINX, ["nginx", "-e", "/dev/null", "-c"]))
        unlisted = []
        for shape in SHAPES:
            if not shape.is_refused or shape.id in DEVIATIONS:
                continue
            data = shape.data[:-len(SMUGGLED)] if shape.data.endswith(SMUGGLED) else shape.data
            if all(o.takes(data) for o in others):
                unlisted.append(shape.id)
        assert not unlisted
    finally:
        for o in others:
            o.stop()
    assert not set(DEVIATIONS) - {s.id for s in SHAPES}, "names that no shape has"
