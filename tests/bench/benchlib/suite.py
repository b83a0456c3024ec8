"""What every load shares: arguments, a directory to work in, contenders that take turns, medians, a table."""
import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile

from . import certs, contenders, procs

HERE = os.path.dirname(os.path.abspath(__file__))


def arguments(doc, seconds=3, rounds=3):
    ap = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    common(ap, seconds, rounds)
    return ap.parse_args()


def common(ap, seconds=3, rounds=3):
    ap.add_argument("--json", action="store_true")
    ap.add_argument("--seconds", type=int, default=seconds)
    ap.add_argument("--rounds", type=int, default=rounds)
    ap.add_argument("--bin", default=os.path.join(HERE, "..", "..", "..", "build", "bin"))


def median_of(rows):
    return {k: round(statistics.median(r[k] for r in rows), 3) for k in rows[0]}


def interleaved(args, origin_of, names, protocol, phases, warm):
    """phases: {name: fn(contender, origin, seconds) -> row}; warm(contender, origin) is load that both proxies must see.
    Every contender has all its rounds' turns after one another's: {contender: {phase: medians}}."""
    work = tempfile.mkdtemp(prefix="weft-bench-")
    os.chmod(work, 0o755)
    origin, running = origin_of(work), {}
    rows, failed = {}, {}
    try:
        origin.start()
        pki = certs.make(work)
        for name in names:
            c = contenders.make(name, work, origin.port, pki, args.bin, protocol)
            try:
                c.start()
                c.check(lambda: warm(c, origin))
                running[name], rows[name] = c, {p: [] for p in phases}
            except Exception as e:  # a contender that is missing must not hide the others
                c.stop()
                failed[name] = str(e)
                print(f"{name}: not measured: {e}", file=sys.stderr)
        for _ in range(args.rounds):
            for phase, fn in phases.items():
                for name, c in running.items():
                    cpu = procs.cpu_us(c.pids())
                    r = fn(c, origin, args.seconds)
                    cpu = procs.cpu_us(c.pids()) - cpu
                    if "requests" in r:
                        r["cpu_us_per_request"] = cpu / max(1, r.pop("requests"))
                    if "bytes" in r:
                        n = r.pop("bytes")
                        r |= {"gb_per_s": n / 1e9 / args.seconds, "gb_per_cpu_s": n / 1e9 / (cpu / 1e6)}
                    rows[name][phase].append(r)
        return {n: {p: median_of(r) for p, r in of.items()} for n, of in rows.items()}, failed
    finally:
        for c in running.values():
            c.stop()
        origin.stop()
        shutil.rmtree(work, ignore_errors=True)


def ratios(out):
    if "weft" not in out or "haproxy" not in out:
        return None
    return {p: {k: round(v / out["haproxy"][p][k], 3) for k, v in rows.items() if out["haproxy"][p].get(k)}
            for p, rows in out["weft"].items()}


def say(args, out, failed=None):
    result = {"contenders": out, "ratio_to_haproxy": ratios(out), "not_measured": failed or {},
              "seconds": args.seconds, "rounds": args.rounds, "machine": procs.machine()}
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        for name, phases in list(out.items()) + [("weft/haproxy", result["ratio_to_haproxy"] or {})]:
            for phase, row in phases.items():
                print(f"{name:13} {phase:10} " + "  ".join(f"{k} {v:g}" for k, v in row.items()))
    sys.exit(0 if "weft" in out else 1)
