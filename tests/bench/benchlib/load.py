"""The two load generators: wrk (closed loop) and h2load (open loop at a fixed rate)."""

import re
import subprocess
import tempfile

from . import procs

UNIT = {"us": 1, "ms": 1000, "s": 1_000_000, "m": 60_000_000}


def _us(text):
    m = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text)
    return float(m.group(1)) * UNIT[m.group(2)]


def closed_loop(port, connections, seconds):
    out = subprocess.run(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "5s",
                          f"http://127.0.0.1:{port}/100"], capture_output=True, text=True,
                         env=procs.env(), timeout=seconds + 30).stdout
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)|Socket errors: (.*)", out)
    total = re.search(r"(\d+) requests in", out)
    if bad or not total or int(total.group(1)) == 0:
        raise RuntimeError("wrk: " + " ".join(out.split())[-300:])
    return {"requests": int(total.group(1)),
            "rps": float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1)),
            "p50_us": _us(re.search(r"^ +50% +(\S+)", out, re.M).group(1)),  # "83.50%" is a line of its own above
            "p99_us": _us(re.search(r"^ +99% +(\S+)", out, re.M).group(1))}


def fixed_rate(port, rate, seconds, connections=16):
    with tempfile.NamedTemporaryFile(prefix="h2load-") as log:
        out = subprocess.run(["h2load", "--h1", "-t1", f"-c{connections}", f"--rps={rate / connections}",
                              f"-D{seconds}", f"--log-file={log.name}", f"http://127.0.0.1:{port}/100"],
                             capture_output=True, text=True, env=procs.env(), timeout=seconds + 30).stdout
        rows = [line.split("\t") for line in open(log.name)]
    # h2load cannot read a status line without a reason phrase (HAProxy's) and logs 0: the bodies are counted instead.
    lat = sorted(int(r[2]) for r in rows if r[1] in ("200", "0"))
    data = re.search(r"\((\d+)\) data", out)
    if not lat or len(lat) < len(rows) or not data or int(data.group(1)) < 100 * len(lat):
        raise RuntimeError(f"h2load: {len(lat)} of {len(rows)} requests succeeded: " + " ".join(out.split())[-300:])
    return {"requests": len(lat), "rps": len(lat) / seconds, "p50_us": float(lat[len(lat) // 2]),
            "p99_us": float(lat[min(len(lat) - 1, len(lat) * 99 // 100)])}


def h2(port, seconds, connections=1, streams=100, grpc_body=None):
    """h2load over HTTP/2 with prior knowledge; with grpc_body as a unary gRPC call looks."""
    argv = ["h2load", "-t1", f"-c{connections}", f"-m{streams}", f"-D{seconds}", "--warm-up-time=0"]
    if grpc_body:
        argv += ["-d", grpc_body, "-H", "content-type: application/grpc", "-H", "te: trailers"]
    with tempfile.NamedTemporaryFile(prefix="h2load-") as log:
        out = subprocess.run([*argv, f"--log-file={log.name}", f"http://127.0.0.1:{port}/100"], capture_output=True,
                             text=True, env=procs.env(), timeout=seconds + 30).stdout
        rows = [line.split("\t") for line in open(log.name)]
    lat = sorted(int(r[2]) for r in rows if r[1] == "200")
    if not lat or len(lat) < 0.99 * len(rows):
        raise RuntimeError(f"h2load: {len(lat)} of {len(rows)} requests succeeded: " + " ".join(out.split())[-300:])
    return {"requests": len(lat), "rps": len(lat) / seconds, "p50_us": float(lat[len(lat) // 2]),
            "p99_us": float(lat[min(len(lat) - 1, len(lat) * 99 // 100)])}
