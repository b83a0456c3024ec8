"""The pairs. Each has .port (where the client connects), .start(), .stop(), .pids() (both proxies)."""
import os
import subprocess

from . import procs, weft_pods


class Origin:
    """nginx with a 100-byte answer: what every pair has behind it."""

    def __init__(self, work):
        self.dir, self.p = os.path.join(work, "origin"), None
        self.port, = procs.free_ports(1)

    def start(self):
        os.mkdir(self.dir)
        conf = os.path.join(self.dir, "nginx.conf")
        with open(conf, "w") as f:
            f.write(f"""
daemon off; worker_processes 1; pid {self.dir}/pid; error_log {self.dir}/error.log;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 300s;
  client_body_temp_path {self.dir}/b; proxy_temp_path {self.dir}/p; fastcgi_temp_path {self.dir}/f;
  uwsgi_temp_path {self.dir}/u; scgi_temp_path {self.dir}/s;
  server {{ listen 127.0.0.1:{self.port} backlog=4096; listen {procs.SERVER_IP}:{self.port} backlog=4096;
    location / {{ return 200 "{'x' * 100}"; }} }} }}""")
        self.p = procs.start(["nginx", "-c", conf, "-p", self.dir], os.path.join(self.dir, "log"))
        procs.wait_port(self.port)

    def stop(self):
        procs.stop(self.p)


class H2Origin:
    """nghttpd with a file of 100 bytes; with trailers it ends its answers as a gRPC server does."""

    def __init__(self, work, is_grpc=False):
        self.dir, self.p, self.is_grpc = os.path.join(work, "origin"), None, is_grpc
        self.port, = procs.free_ports(1)

    def start(self):
        os.mkdir(self.dir)
        with open(os.path.join(self.dir, "100"), "wb") as f:
            f.write(b"\0\0\0\0\x5f" + b"x" * 95)
        more = ["--trailer=grpc-status: 0"] if self.is_grpc else []
        self.p = procs.start(["nghttpd", "--no-tls", "-d", self.dir, *more, str(self.port)],
                             os.path.join(self.dir, "log"))
        procs.wait_port(self.port)

    def stop(self):
        procs.stop(self.p)


class TCPOrigin:
    """tcp_peer.py: takes what comes and counts it, or sends every byte back."""

    def __init__(self, work, mode):
        self.dir, self.p, self.mode = os.path.join(work, "tcp-" + mode), None, mode
        self.port, = procs.free_ports(1)

    def start(self):
        os.mkdir(self.dir)
        peer = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tcp_peer.py")
        self.count = os.path.join(self.dir, "count")
        self.p = procs.start(["/usr/bin/python3", peer, self.mode, str(self.port), self.count],
                             os.path.join(self.dir, "log"))
        procs.wait_port(self.port)

    def received(self):
        with open(self.count) as f:
            return int(f.read() or 0)

    def stop(self):
        procs.stop(self.p)


class Pair:
    protocol = "http1"  # what the application speaks: http1, http2 or opaque
    more = ""           # further services of Weft's server, further sections of HAProxy's server
    more_out = ""       # further sections of HAProxy's client

    def __init__(self, name, work, origin_port, pki):
        self.dir, self.origin, self.pki = os.path.join(work, name), origin_port, pki
        os.makedirs(self.dir)
        self.port, self.inner = procs.free_ports(2)
        self.procs = []

    def file(self, name, text):
        path = os.path.join(self.dir, name)
        with open(path, "w") as f:
            f.write(text)
        return path

    def run(self, argv, **kw):
        p = procs.start(argv, os.path.join(self.dir, "log"), **kw)
        self.procs.append(p)
        return p

    def pids(self):
        return [pid for p in self.procs for pid in procs.tree(p.pid)]

    def start(self):
        self.start_both()
        procs.wait_port(self.port)
        procs.wait_port(self.inner)

    def check(self, run):
        """Proof that traffic passes both proxies: each of them works while run() makes load."""
        before = [procs.cpu_us(procs.tree(p.pid)) for p in self.procs]
        run()
        for p, used in zip(self.procs, before):
            if procs.cpu_us(procs.tree(p.pid)) - used < 50_000:
                raise RuntimeError("one of the two proxies is not in the way of the traffic")

    def stop(self):
        for p in reversed(self.procs):
            procs.stop(p)
        self.procs = []


class HAProxy(Pair):
    def start_both(self):
        is_h2, is_tcp = self.protocol == "http2", self.protocol == "opaque"
        proto, alpn = " proto h2" if is_h2 else "", "" if is_tcp else " alpn h2"
        common = f"""
global
  nbthread 1
  maxconn 4000
  ssl-default-bind-options ssl-min-ver TLSv1.3
  ssl-default-server-options ssl-min-ver TLSv1.3
defaults
  mode {"tcp" if is_tcp else "http"}
  timeout connect 5s
  timeout client 300s
  timeout server 300s
{"" if is_tcp else "  timeout http-keep-alive 300s"}
{"" if is_tcp else "  http-reuse always"}
"""
        k = self.pki
        inbound = common + f"""
frontend in
  bind 127.0.0.1:{self.inner} ssl crt {k.server_pem} ca-file {k.ca} verify required{alpn}
  default_backend app
backend app
  server s 127.0.0.1:{self.origin} pool-max-conn 1000{proto}
""" + self.more
        outbound = common + f"""
frontend out
  bind 127.0.0.1:{self.port}{proto}
  default_backend peer
backend peer
  server s 127.0.0.1:{self.inner} ssl crt {k.client_pem} ca-file {k.ca} verify required verifyhost {k.name} sni str({k.name}){alpn}
""" + self.more_out
        for name, conf in (("in.cfg", inbound), ("out.cfg", outbound)):
            self.run(["haproxy", "-db", "-q", "-f", self.file(name, conf)])


class NGHTTPX(Pair):
    def start_both(self):
        k = self.pki
        base = ["nghttpx", "--workers=1", "--conf=/dev/null", "--accesslog-file=/dev/null", "--no-server-push",
                "--tls-min-proto-version=TLSv1.3", "--single-process", "--no-ocsp",
                "--frontend-keep-alive-timeout=300s", "--backend-keep-alive-timeout=300s"]
        base = [a for a in base if a != "--no-server-push"]
        self.run(base + [f"--frontend=127.0.0.1,{self.inner}", f"--backend=127.0.0.1,{self.origin};;proto={'h2' if self.protocol == 'http2' else 'http/1.1'}",
                         "--verify-client", f"--verify-client-cacert={k.ca}", k.server_key, k.server_crt])
        self.run(base + [f"--frontend=127.0.0.1,{self.port};no-tls",
                         f"--backend=127.0.0.1,{self.inner};;proto=h2;tls;sni={k.name}", f"--cacert={k.ca}",
                         f"--client-cert-file={k.client_crt}", f"--client-private-key-file={k.client_key}"])


class NGINX(Pair):
    """nginx speaks HTTP/1.1 to its upstreams; between the two it is kept-alive HTTP/1.1 over mTLS."""

    def start_both(self):
        k = self.pki
        for name, body in (("in", f"""
  upstream app {{ server 127.0.0.1:{self.origin}; keepalive 256; keepalive_requests 100000000; }}
  server {{ listen 127.0.0.1:{self.inner} ssl backlog=4096;
    ssl_certificate {k.server_crt}; ssl_certificate_key {k.server_key}; ssl_protocols TLSv1.3;
    ssl_client_certificate {k.ca}; ssl_verify_client on; ssl_verify_depth 3;
    location / {{ proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; }} }}"""),
                           ("out", f"""
  upstream peer {{ server 127.0.0.1:{self.inner}; keepalive 256; keepalive_requests 100000000; }}
  server {{ listen 127.0.0.1:{self.port} backlog=4096;
    location / {{ proxy_pass https://peer; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_ssl_certificate {k.client_crt}; proxy_ssl_certificate_key {k.client_key}; proxy_ssl_protocols TLSv1.3;
      proxy_ssl_trusted_certificate {k.ca}; proxy_ssl_verify on; proxy_ssl_verify_depth 3; proxy_ssl_name {k.name};
      proxy_ssl_server_name on; }} }}""")):
            conf = self.file(name + ".conf", f"""
daemon off; worker_processes 1; pid {self.dir}/{name}.pid; error_log {self.dir}/{name}.err;
events {{ worker_connections 8192; }}
http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 300s;
  client_body_temp_path {self.dir}/b; proxy_temp_path {self.dir}/p; fastcgi_temp_path {self.dir}/f;
  uwsgi_temp_path {self.dir}/u; scgi_temp_path {self.dir}/s; {body} }}""")
            self.run(["nginx", "-c", conf, "-p", self.dir])


class Weft(Pair):
    """Two pods and a control plane on loopback, without redirect: the outbound port is given its target."""

    def __init__(self, name, work, origin_port, pki, bin_dir):
        super().__init__(name, work, origin_port, pki)
        self.bin = os.path.abspath(bin_dir)
        self.is_up = False
        self.service, self.settings = "server", {}

    def serves(self):
        return f"{self.service}:{self.origin}/{self.protocol}{self.more}"

    def weft(self, command, *args, state=False):
        argv = [os.path.join(self.bin, "weft"), command, *args, "--run", os.path.join(self.dir, "run")]
        if state:
            argv += ["--state", os.path.join(self.dir, "state")]
        r = subprocess.run(argv, capture_output=True, text=True, env=procs.env(), timeout=60)
        if r.returncode != 0:
            raise RuntimeError(f"weft {command}: {(r.stderr or r.stdout).strip()[-300:]}")
        return r.stdout

    def start_both(self):
        weft_pods.start(self)

    def stop(self):
        super().stop()
        if self.is_up:
            self.is_up = False
            self.weft("down")


class WeftBeside(Weft):
    """One more pair in the mesh of another one: another build, or other settings."""

    def __init__(self, first, name, origin_port, bin_dir, settings):
        super().__init__("weft-" + name, os.path.dirname(first.dir), origin_port, first.pki, bin_dir)
        self.dir, self.service, self.settings, self.protocol = first.dir, name, settings, first.protocol
        self.first = first

    def start_both(self):
        self.net = self.first.net
        weft_pods.start_pods(self)


def make(name, work, origin_port, pki, bin_dir, protocol="http1"):
    if name == "weft":
        c = Weft(name, work, origin_port, pki, bin_dir)
    else:
        c = {"haproxy": HAProxy, "nghttpx": NGHTTPX, "nginx": NGINX}[name](name, work, origin_port, pki)
    c.protocol = protocol
    return c
