"""weft-proxy under callgrind: a bin directory in which weft-proxy starts itself through valgrind, and what the
dumps say: instructions per request by layer, and calls per request."""
import collections
import os
import re
import subprocess
import time

from . import procs

# The supervisor starts its children by execveat on a close-on-exec directory: a script would not be found again.
WRAPPER = r"""
#include <stdlib.h>
#include <unistd.h>
int main(int argc, char **argv)
{
    char *const args[] = {"valgrind", "--tool=callgrind", "--dump-line=no", "--compress-strings=no",
                          "--compress-pos=no", "--callgrind-out-file=" OUT "/cg.%p", REAL, argc > 1 ? argv[1] : NULL,
                          NULL};
    (void)setenv("WEFT_CONFINE", "false", 1);
    (void)execv("/usr/bin/valgrind", args);
    return 127;
}
"""

# The first that matches (object or file or function) owns the instructions; in this order.
LAYERS = [
    ("record layer (libcrypto)", r"libcrypto"),
    ("nghttp2", r"libnghttp2"),
    ("libevent", r"libevent"),
    ("llhttp", r"/llhttp/|llhttp__|weft-llhttp"),
    ("allocator (libc)", r":(malloc|free|calloc|realloc|_int_\w+|malloc_consolidate|unlink_chunk\S*|tcache\w*|__libc_(malloc|free|calloc)|sysmalloc|arena_get\S*|alloc_perturb|checked_request2size)(\s|$|')"),
    ("memcpy, memset, memcmp (libc)", r":\S*(mem|str)\w*(_avx|_sse|_erms|_evex|_unaligned)\S*"),
    ("system call stubs and the rest of libc", r"libc\.so|ld-linux|vdso"),
    ("libzmq", r"libzmq|libsodium|libpgm|libstdc"),
    ("record layer (own)", r"proxy/record/"),
    ("socket I/O: proxy/net", r"proxy/net/"),
    ("proxy/http1", r"proxy/http1/"),
    ("proxy/http2", r"proxy/http2/"),
    ("heads and fields: proxy/http, model", r"proxy/http/|actors/model/"),
    ("exchange, routing: proxy/exchange", r"proxy/exchange/"),
    ("balance", r"proxy/balance/"),
    ("series, tally", r"proxy/series/|proxy/tally"),
    ("kit: buf, arena, clock, timer", r"actors/kit/"),
]
CALLS = ("syscall", "read", "send", "epoll_wait", "epoll_ctl", "malloc", "calloc", "realloc", "free", "clock_gettime",
         "event_active", "event_add_nolock_", "event_del_nolock_", "recv", "HMAC", "EVP_EncryptUpdate",
         "EVP_DecryptUpdate", "EVP_CipherInit_ex")


def make_bin(work, bin_dir):
    """A copy of bin_dir (hard links where possible) whose weft-proxy runs under callgrind; dumps go to work/out."""
    dst, out = os.path.join(work, "bin"), os.path.join(work, "out")
    os.mkdir(dst)
    os.mkdir(out)
    os.chmod(out, 0o777)
    for name in os.listdir(bin_dir):
        to = os.path.join(dst, name if name != "weft-proxy" else "weft-proxy.real")
        subprocess.run(["cp", "-l", os.path.join(bin_dir, name), to], capture_output=True)
        if not os.path.exists(to):
            subprocess.run(["cp", os.path.join(bin_dir, name), to], check=True)
    subprocess.run(["cc", "-O1", "-x", "c", f'-DOUT="{out}"', f'-DREAL="{dst}/weft-proxy.real"', "-o",
                    os.path.join(dst, "weft-proxy"), "-"], input=WRAPPER, text=True, check=True, env=procs.env())
    return dst, out


def proxies(pids):
    found = []
    for pid in pids:
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                if b"weft-proxy.real" in f.read():
                    found.append(pid)
        except OSError:
            pass
    return found


def wait_dump(out, pid, seconds=30):
    """Path of the dump that a process leaves when it has ended."""
    end = time.monotonic() + seconds
    path = f"{out}/cg.{pid}"
    while time.monotonic() < end:
        if not os.path.exists(f"/proc/{pid}") and os.path.exists(path) and os.path.getsize(path) > 0:
            return path
        time.sleep(0.1)
    raise RuntimeError(f"no callgrind dump of process {pid}")


def _layer(key):
    for name, pattern in LAYERS:
        if re.search(pattern, key):
            return name
    return "the rest of weft-proxy"


def parse(path):
    """{(object file, source file, function): self instructions}, {callee: calls} of one dump."""
    cost, calls = collections.Counter(), collections.Counter()
    ob = fl = fn = cfn = ""
    skip = False
    with open(path) as f:
        for line in f:
            line = line.rstrip("\n")
            if line.startswith("ob="):
                ob = line[3:]
            elif line.startswith(("fl=", "fi=", "fe=")):
                fl = line[3:]
            elif line.startswith("fn="):
                fn = line[3:]
            elif line.startswith("cfn="):
                cfn = line[4:]
            elif line.startswith("calls="):
                calls[cfn.split("'")[0]] += int(line[6:].split()[0])
                skip = True
            elif line and (line[0].isdigit() or line[0] in "+-*"):
                if skip:
                    skip = False
                else:
                    cost[(ob, fl, fn)] += int(line.split()[-1])
    return cost, calls


def report(few, many, requests):
    """What (cost, calls) of two lives differ by, for each of the requests between them."""
    cost, calls = many[0].copy(), many[1].copy()
    cost.subtract(few[0])
    calls.subtract(few[1])
    layers, functions = collections.Counter(), collections.Counter()
    for (ob, fl, fn), n in cost.items():
        layers[_layer(f"{ob}:{fl}:{fn} ")] += n
        functions[f"{fn} [{os.path.basename(ob)}]"] += n
    return {"instructions_per_request": round(sum(cost.values()) / requests),
            "layers": {k: round(v / requests) for k, v in layers.most_common()},
            "functions": {k: round(v / requests) for k, v in functions.most_common(60)},
            "calls_per_request": {k: round(calls[k] / requests, 2) for k in CALLS if calls[k]}}
