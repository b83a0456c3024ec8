"""Processes of a contender: starting, ending, and what /proc says of them."""
import os
import signal
import socket
import subprocess
import time

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SERVER_IP = "127.0.0.2"  # of Weft's second pod and of the application behind it
TICK_US = 1_000_000 // os.sysconf("SC_CLK_TCK")


def env(**more):
    e = {"PATH": PATH, "LANG": "C.UTF-8"}
    e.update(more)
    return e


def start(argv, log, **kw):
    with open(log, "ab") as f:
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=f, stderr=f,
                                env=kw.pop("env", env()), **kw)


def stop(p, seconds=5):
    if p is None or p.poll() is not None:
        return
    p.send_signal(signal.SIGTERM)
    try:
        p.wait(seconds)
    except subprocess.TimeoutExpired:
        p.kill()
        p.wait()


def tree(pid):
    """pid and all its descendants."""
    kids = {}
    for d in os.listdir("/proc"):
        if d.isdigit():
            try:
                with open(f"/proc/{d}/stat") as f:
                    kids.setdefault(int(f.read().rsplit(")", 1)[1].split()[1]), []).append(int(d))
            except OSError:
                pass
    out, todo = [], [pid]
    while todo:
        p = todo.pop()
        out.append(p)
        todo += kids.get(p, [])
    return out


def cpu_us(pids):
    """User + system time so far. schedstat counts nanoseconds per thread; stat (10 ms ticks) is the fallback."""
    total = 0
    for pid in pids:
        try:
            ns = 0
            for t in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{t}/schedstat") as f:
                    ns += int(f.read().split()[0])
            total += ns / 1000
        except (OSError, IndexError, ValueError):
            try:
                with open(f"/proc/{pid}/stat") as f:
                    s = f.read().rsplit(")", 1)[1].split()
                total += (int(s[11]) + int(s[12])) * TICK_US
            except OSError:
                pass
    return total


def user_system_us(pids):
    """(user, system) so far. The kernel divides the exact sum by what its ticks saw: good for ratios."""
    user = system = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat") as f:
                s = f.read().rsplit(")", 1)[1].split()
            user += int(s[11]) * TICK_US
            system += int(s[12]) * TICK_US
        except OSError:
            pass
    return user, system


def pss_kib(pids):
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup") as f:
                total += sum(int(line.split()[1]) for line in f if line.startswith("Pss:"))
        except OSError:
            pass
    return total


def wait_port(port, seconds=15, host="127.0.0.1"):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            socket.create_connection((host, port), 0.5).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"nothing listens on port {port}")


def free_ports(n):
    socks = [socket.socket() for _ in range(n)]
    for s in socks:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in socks]
    for s in socks:
        s.close()
    return ports


def machine():
    model = ""
    with open("/proc/cpuinfo") as f:
        for line in f:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return {"cpu": model, "cores": os.cpu_count(), "kernel": os.uname().release}
