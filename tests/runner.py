"""Runs the lanes of tests/run and adds up what they say.

The lanes come in the order in which a failure is most useful: a build without warnings, unit tests, the real processes,
then the same under the sanitizers, then the fuzz targets from their corpora.
"""
import glob
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LOGS = os.path.join(ROOT, "build", "test-logs")
FUZZ_SECONDS = int(os.environ.get("WEFT_FUZZ_SECONDS", "12"))
SCENARIO_SECONDS = 600  # one file
JOBS = os.cpu_count() or 2
SAN_ENV = {"ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0:exitcode=99",
           "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1"}
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

passed, failures = 0, []
started = time.monotonic()


def say(text):
    print(f"[{time.monotonic() - started:5.0f}s] {text}", flush=True)


def ok(n=1):
    global passed
    passed += n


def fail(what, look):
    failures.append(what)
    print(f"FAILED {what}: see {os.path.relpath(look, ROOT)}", flush=True)


def run(argv, log, timeout, env=None):
    e = {"PATH": PATH, "HOME": os.environ.get("HOME", "/root"), "LANG": "C.UTF-8", **(env or {})}
    with open(log, "ab") as f:
        try:
            return subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=f, stderr=subprocess.STDOUT, cwd=ROOT,
                                  env=e, timeout=timeout).returncode
        except subprocess.TimeoutExpired:
            f.write(f"\n--- not finished after {timeout} s\n".encode())
            return 124


def build(lane, compiler, *options):
    """Configures and builds a lane; warnings are errors in all of them."""
    log = os.path.join(LOGS, f"build-{lane}.log")
    tree = os.path.join(ROOT, "build" if lane == "release" else f"build/{lane}")
    argv = ["cmake", "-S", ROOT, "-B", tree, "-G", "Ninja", f"-DCMAKE_C_COMPILER={compiler}", "-DWEFT_WERROR=ON",
            *options]
    if shutil.which("ccache", path=PATH):
        argv.append("-DCMAKE_C_COMPILER_LAUNCHER=ccache")
    say(f"build {lane} ({compiler})")
    if run(argv, log, 300) or run(["ninja", "-C", tree], log, 1200):
        fail(f"build {lane}", log)
        with open(log, errors="replace") as f:
            errors = [line.rstrip() for line in f if re.search(r"(error|warning):", line)]
        print("\n".join("    " + e for e in errors[:15]), flush=True)
        return None
    ok()
    return tree


def unit_tests(lane, tree, env=None):
    def one(path):
        name = os.path.basename(path)
        log = os.path.join(LOGS, f"{lane}-{name}.log")
        return name, log, run([path], log, 120, env)

    programs = sorted(glob.glob(os.path.join(tree, "tests", "unit-*")))
    programs = [p for p in programs if os.access(p, os.X_OK) and os.path.isfile(p)]
    say(f"{lane}: {len(programs)} unit test programs")
    if not programs:
        failures.append(f"{lane}: no unit tests were built")
    with ThreadPoolExecutor(JOBS) as pool:
        for name, log, rc in pool.map(one, programs):
            with open(log, errors="replace") as f:
                text = f.read()
            ok(len(re.findall(r"^\[       OK \]", text, re.M)))
            bad = sorted(set(re.findall(r"^\[  FAILED  \] (\w+)$", text, re.M)))
            for b in bad:
                fail(f"{lane} {name} {b}", log)
            if rc != 0 and not bad:
                fail(f"{lane} {name} (exit code {rc})", log)


def scenario_file(lane, tree, path, args, env):
    """One file in a pytest of its own: (path, its log, its result file or None, exit code)."""
    name = os.path.basename(path)[:-len(".py")]
    log, xml = (os.path.join(LOGS, f"{lane}-{name}.{kind}") for kind in ("log", "xml"))
    rc = run(["/usr/bin/python3", "-m", "pytest", "-p", "no:cacheprovider", "-q", "-rfE", "--durations=3",
              f"--junitxml={xml}", path, *args], log, SCENARIO_SECONDS,
             {"WEFT_BUILD": tree, "PYTHONDONTWRITEBYTECODE": "1", **(env or {})})
    return path, log, xml if os.path.exists(xml) else None, rc


def scenarios(lane, tree, args, env=None, jobs=JOBS):
    """Files run side by side: they mostly wait, and each has meshes of its own. Large files first, so that none is left at the end.
    Not under the sanitizers, which keep the machine busy enough."""
    files = sorted(glob.glob(os.path.join(ROOT, "tests", "scenario", "test_*.py")), key=os.path.getsize, reverse=True)
    say(f"{lane}: {len(files)} files of scenarios")
    with ThreadPoolExecutor(jobs) as pool:
        for path, log, xml, rc in pool.map(lambda f: scenario_file(lane, tree, f, args, env), files):
            if xml is None:
                fail(f"{lane} {os.path.basename(path)} (pytest exit code {rc})", log)
                continue
            for case in ET.parse(xml).getroot().iter("testcase"):
                if case.find("failure") is not None or case.find("error") is not None:
                    fail(f"{lane} {case.get('classname')}::{case.get('name')}", log)
                elif case.find("skipped") is None:
                    ok()
                else:
                    fail(f"{lane} {case.get('name')} was skipped: a lane runs everything", log)


def fuzz(tree):
    targets = sorted(glob.glob(os.path.join(tree, "tests", "fuzz", "fuzz-*")))
    targets = [t for t in targets if os.access(t, os.X_OK) and os.path.isfile(t)]
    if not targets:
        failures.append("fuzz: no targets were built")
    # Three messages of every kind in the table, as the encoder makes them today.
    seeds = os.path.join(tree, "seeds", "wire_decode")
    os.makedirs(seeds, exist_ok=True)
    run([os.path.join(tree, "bin", "weft-wire-doc"), "--seeds", seeds], os.path.join(LOGS, "fuzz-seeds.log"), 60)

    def one(path):
        name = os.path.basename(path)[len("fuzz-"):]
        log = os.path.join(LOGS, f"fuzz-{name}.log")
        work = os.path.join(tree, "corpus", name)
        shutil.rmtree(work, ignore_errors=True)
        os.makedirs(work)
        seeds = [d for d in (os.path.join(ROOT, "tests", "fuzz", "corpus", name), os.path.join(tree, "seeds", name))
                 if os.path.isdir(d)]
        rc = run([path, "-seed=1", f"-max_total_time={FUZZ_SECONDS}", "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1",
                  f"-artifact_prefix={LOGS}/{name}-", work, *seeds], log, FUZZ_SECONDS + 120, SAN_ENV)
        return name, log, rc

    say(f"fuzz: {len(targets)} targets, {FUZZ_SECONDS} s each from their corpora")
    with ThreadPoolExecutor(JOBS) as pool:
        for name, log, rc in pool.map(one, targets):
            if rc != 0:
                fail(f"fuzz {name}", log)
            else:
                ok()


def main():
    # Who starts us in the background may have told us to ignore Ctrl-C; the tests that press it must not inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    lanes = ("unit", "scenario", "asan", "fuzz")
    only = sys.argv[1] if len(sys.argv) > 1 else None
    if only and only not in lanes:
        sys.exit(f"tests/run: lanes are {', '.join(lanes)}")
    extra = sys.argv[2:]
    os.makedirs(LOGS, exist_ok=True)
    for f in glob.glob(os.path.join(LOGS, "*")):
        os.unlink(f)

    def wants(lane):
        return only is None or only == lane

    if wants("unit") or wants("scenario"):
        tree = build("release", "gcc")
        if tree and wants("unit"):
            unit_tests("release", tree)
        if tree and wants("scenario"):
            scenarios("release", tree, extra)
    if wants("asan"):
        tree = build("asan", "clang", "-DWEFT_SANITIZE=ON")
        if tree:
            unit_tests("asan", tree, SAN_ENV)
            scenarios("asan", tree, ["-m", "asan", *extra], SAN_ENV, 1)
    if wants("fuzz"):
        tree = build("fuzz", "clang", "-DWEFT_FUZZ=ON")
        if tree:
            fuzz(tree)
    for f in failures:
        print(f"failed: {f}")
    print(f"{passed} passed, {len(failures)} failed")
    sys.exit(1 if failures or passed == 0 else 0)


main()
