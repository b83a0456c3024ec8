"""What `weft up`, `weft run` and `weft down` make on a machine, and that all of it goes again: in order,
after every failure half-way, and after kill -9 of any of them. Against stand-ins for the processes."""
import glob
import json
import os
import re
import signal
import stat
import subprocess

import pytest

from meshes import ROOT, WEFT, Mesh, is_alive, wait_for
import stand_ins


@pytest.fixture
def stood():
    """A mesh whose supervisor is the stand-in, not up yet."""
    m = Mesh()
    m.env["WEFT_BIN_DIR"] = stand_ins.install(m.dir)
    try:
        yield m
    finally:
        m.down()


def pods_left(m):
    return (glob.glob("/run/netns/%s-*" % m.bridge) + glob.glob(m.run_dir + "/pods/*") +
            glob.glob(m.state_dir + "/pods/*") + glob.glob(m.run_dir + "/owners/*"))


def gone(m):
    wait_for(lambda: not pods_left(m), "nothing of the pod is left: %s" % pods_left(m))


def supervisor_pid(m):
    with open(os.path.join(m.run_dir, "supervisor.pid")) as f:
        return int(f.read().split()[0])


@pytest.mark.asan
def test_up_and_down(stood):
    m = stood.up()
    info = json.load(open(os.path.join(m.run_dir, "mesh.json")))
    assert info["bridge"] == m.bridge and info["net"] == m.net
    assert oct(os.stat(m.run_dir + "/control").st_mode & 0o777) == "0o700"
    assert os.stat(m.run_dir + "/control").st_uid == 2103
    assert os.stat(m.state_dir).st_uid == 2103
    fence = subprocess.run(["nft", "list", "table", "inet", "weft_" + m.bridge], stdout=subprocess.PIPE,
                           text=True).stdout
    assert 'iifname "%s" oifname != "%s" drop' % (m.bridge, m.bridge) in fence
    again = m.weft("up", "--state", m.state_dir, "--net", m.net, "--bridge", m.bridge, check=False)
    assert again.returncode == 1 and "runs already" in again.stderr
    assert m.weft("check", check=False).returncode == 1, "there is no database: check says so"
    m.weft("down")
    assert not m.leftovers()
    assert os.path.exists(m.state_dir + "/.weft"), "state is kept"
    m.weft("down", "--purge", "--state", m.state_dir, "--bridge", m.bridge, "--net", m.net)
    assert not os.path.exists(m.state_dir)
    assert m.weft("down", "--bridge", m.bridge, "--net", m.net, "--state", m.state_dir).returncode == 0


@pytest.mark.asan
def test_a_program_runs_in_its_pod(stood):
    m = stood.up()
    program = m.python('''
import os, socket, sys, time
began = time.monotonic()
try:
    socket.create_connection(("no-such-name.example", 1))
except OSError:
    pass
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(("198.51.100.1", 53))
try:
    s.send(b"x"), s.recv(1)
except OSError as e:
    print("refused" if time.monotonic() - began < 2 else "slow", flush=True)
print(os.getuid(), open("/etc/hosts").read().split()[1], socket.gethostbyname("web"), flush=True)
s = socket.create_connection(("web", 80), timeout=5)
print("captured" if s.recv(100).startswith(b"weft-capture") else "free", flush=True)
time.sleep(1000)
''')
    app = m.run("shop", ["python3", program], ports=["8080", "9090/http2"],
                options=["--zone", "north", "--service-account", "clerk", "--namespace", "trade"])
    wait_for(lambda: "captured" in app.output() or "rror" in app.output(), "the program's connection")
    nobody = __import__("pwd").getpwnam("nobody").pw_uid
    assert app.output().split("\n")[:2] == ["refused", "%d localhost 10.9.8.7" % nobody]
    env = json.load(open(os.path.join(m.state_dir, "pods", app.pod, "env.json")))
    want = {"WEFT_POD": "shop-1", "WEFT_NAMESPACE": "trade", "WEFT_WORKLOAD": "shop",
            "WEFT_SERVICE_ACCOUNT": "clerk", "WEFT_ZONE": "north",
            "WEFT_SERVES": "shop:8080,shop:9090/http2", "WEFT_TRUST_DOMAIN": "cluster.local"}
    assert {k: env[k] for k in want} == want
    ip4, ip6 = env["WEFT_POD_IPS"].split(",")
    inside = subprocess.run(["ip", "-n", "%s-trade-shop-1" % m.bridge, "-o", "addr"],
                            stdout=subprocess.PIPE, text=True).stdout
    assert ip4 + "/20" in inside and ip6 + "/48" in inside
    st = os.stat(app.run_dir)
    assert (st.st_uid, stat.S_IMODE(st.st_mode)) == (2102, 0o700)
    token = os.stat(os.path.join(m.state_dir, "pods", app.pod, "token"))
    assert (token.st_uid, stat.S_IMODE(token.st_mode)) == (2102, 0o600)
    assert open(os.path.join(app.run_dir, "capture")).read() == "ok\n"
    twin = m.weft("run", "--as", "shop", "--pod", "shop-1", "--", "true", check=False)
    assert twin.returncode == 1 and "runs already" in twin.stderr
    assert app.stop() == 128 + signal.SIGTERM
    gone(m)


@pytest.mark.parametrize("argv,code", [
    (["true"], 0), (["sh", "-c", "exit 42"], 42), (["sh", "-c", "kill -9 $$"], 137),
    (["/no/such/program"], 127), (["/etc/passwd"], 126)])
def test_the_exit_code_is_the_programs(stood, argv, code):
    m = stood.up()
    done = m.weft("run", "--as", "job", "--user", "nobody", "--", *argv, check=False)
    assert done.returncode == code, done.stderr
    gone(m)


def test_signals_are_passed_on(stood):
    m = stood.up()
    program = m.python('''
import signal, sys, time
signal.signal(signal.SIGUSR1, lambda *_: print("usr1", flush=True))
signal.signal(signal.SIGTERM, lambda *_: (print("bye", flush=True), sys.exit(7)))
print("ready", flush=True)
while True: time.sleep(0.05)
''')
    app = m.run("job", ["python3", program])
    wait_for(lambda: "ready" in app.output(), "the program's handlers")
    app.process.send_signal(signal.SIGUSR1)
    wait_for(lambda: "usr1" in app.output(), "SIGUSR1")
    assert app.stop() == 7
    assert app.output().split() == ["ready", "usr1", "bye"]


def lock_of(m):
    """Another command that holds the mesh's lock."""
    import fcntl
    f = open(m.run_dir + "/lock", "w")
    fcntl.flock(f, fcntl.LOCK_EX)
    return f


def start(m, *argv):
    return subprocess.Popen([WEFT, *argv], env=m.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)


def waits_for_lock(m, process):
    """It has the lock's file open: it cannot go on before the lock is given back."""
    def has():
        fds = "/proc/%d/fd" % process.pid
        return any(os.path.realpath(os.path.join(fds, f)) == os.path.realpath(m.run_dir + "/lock")
                   for f in os.listdir(fds))
    wait_for(has, "process %d waits for the lock" % process.pid)


def test_down_waits_for_the_lock(stood):
    m = stood.up()
    lock = lock_of(m)
    down = start(m, "down")
    waits_for_lock(m, down)
    assert os.path.exists(m.run_dir + "/supervisor.pid") and down.poll() is None
    lock.close()
    assert down.wait(20) == 0, down.stderr.read()
    assert not m.leftovers()


def test_a_run_behind_a_down_finds_no_mesh(stood):
    """Both wait for the lock; the run, whenever it has it, either makes a pod that ends or says what happened."""
    m = stood.up()
    lock = lock_of(m)
    down = start(m, "down")
    waits_for_lock(m, down)
    run = start(m, "run", "--as", "job", "--user", "nobody", "--", "sleep", "1000")
    waits_for_lock(m, run)
    os.rename(m.run_dir, m.run_dir + ".gone")  # what a down that was quicker does, as far as the run can see
    try:
        lock.close()
        assert run.wait(20) == 3
        assert run.stderr.read() == "weft: the mesh of %s was taken down meanwhile\n" % m.run_dir
        assert down.wait(20) == 0, "gone is what was asked for: " + down.stderr.read()
    finally:
        os.rename(m.run_dir + ".gone", m.run_dir)
    m.weft("down")
    assert not m.leftovers()


def test_another_mesh_instead_is_noticed(stood):
    m = stood.up()
    lock = lock_of(m)
    run = start(m, "run", "--as", "job", "--user", "nobody", "--", "sleep", "1000")
    waits_for_lock(m, run)
    record = open(m.run_dir + "/mesh.json").read()
    with open(m.run_dir + "/mesh.json", "w") as f:
        f.write(record.replace(m.state_dir, m.state_dir + "2"))
    lock.close()
    assert run.wait(20) == 3
    assert "another mesh was started" in run.stderr.read()
    with open(m.run_dir + "/mesh.json", "w") as f:
        f.write(record)


def test_a_second_up_leaves_the_first_alone(stood):
    m = stood
    ups = [start(m, "up", "--state", m.state_dir, "--net", m.net, "--bridge", m.bridge) for _ in range(3)]
    codes = sorted(u.wait(60) for u in ups)
    said = [u.stderr.read() for u in ups]
    assert codes == [0, 1, 1], said
    assert m.weft("run", "--as", "job", "--user", "nobody", "--", "true").returncode == 0


def test_down_in_the_middle_of_run(stood):
    """The pod is being made and never gets ready: down does not wait for that, and run says what ended it."""
    stood.env["WEFT_STAND_IN"] = "no-ready"
    m = stood.up()
    run = start(m, "run", "--as", "web", "--user", "nobody", "--ready-timeout", "60s", "--", "touch", m.dir + "/x")
    wait_for(lambda: glob.glob(m.state_dir + "/pods/web-*/env.json"), "its supervisor runs")
    began = __import__("time").monotonic()
    m.weft("down")
    assert __import__("time").monotonic() - began < 8
    assert run.wait(5) == 128 + signal.SIGTERM
    assert "ended by signal 15" in run.stderr.read()
    assert not os.path.exists(m.dir + "/x") and not m.leftovers()


@pytest.mark.parametrize("fault,code,words", [
    ("no-token", 1, "join token: the broker refused (NOT_NOW)"),
    ("dies", 3, "the stand-in dies as it was told"),
    ("no-ready", 3, "not ready in time"),
    ("no-proxy", 1, "traffic is not captured: not-protected"),
])
def test_a_failed_start_leaves_nothing(stood, fault, code, words):
    stood.env["WEFT_STAND_IN"] = fault
    m = stood.up()
    done = m.weft("run", "--as", "web", "--user", "nobody", "--ready-timeout", "1s", "--", "touch",
                  m.dir + "/started", check=False)
    assert done.returncode == code and words in done.stderr, done.stderr
    assert not os.path.exists(m.dir + "/started"), "the program must not start unprotected"
    assert not pods_left(m)


def test_a_pod_that_dies_takes_its_program_along(stood):
    m = stood.up()
    m.env["WEFT_STAND_IN"] = "dies-later"
    app = m.run("web", ["sleep", "1000"])
    assert app.process.wait(20) == 1
    assert "supervisor ended" in app.output()
    gone(m)


@pytest.mark.asan
def test_killed_weft_run_is_swept_by_the_next(stood):
    m = stood.up()
    app = m.run("web", ["sh", "-c", "sleep 1000 & setsid sleep 1001 & wait"])
    inside = wait_for(lambda: subprocess.run(["ip", "netns", "pids", app.netns], stdout=subprocess.PIPE,
                                             text=True).stdout.split(), "processes")
    app.process.kill()
    app.process.wait()
    assert os.path.exists("/run/netns/" + app.netns)
    check = m.weft("check", check=False)
    assert check.returncode == 1 and "its weft run is gone" in check.stdout
    other = m.run("other", ["sleep", "1000"])
    assert not os.path.exists("/run/netns/" + app.netns)
    for pid in inside:
        assert not is_alive(int(pid))
    assert os.path.exists("/run/netns/" + other.netns), "a living pod is left alone"


def test_down_ends_living_pods_and_a_killed_control_plane(stood):
    m = stood.up()
    apps = [m.run("web", ["sleep", "1000"]), m.run("web", ["sleep", "1000"])]
    os.kill(supervisor_pid(m), signal.SIGKILL)
    assert m.weft("run", "--as", "late", "--", "true", check=False).returncode == 3
    m.weft("down")
    assert not m.leftovers()
    for app in apps:
        assert app.process.wait(5) is not None


def test_up_tidies_what_a_crash_left(stood):
    m = stood.up()
    app = m.run("web", ["sleep", "1000"])
    app.process.kill()
    pid = supervisor_pid(m)
    os.kill(pid, signal.SIGKILL)
    app.process.wait()
    wait_for(lambda: not is_alive(pid), "the supervisor's end")
    m.up()
    assert not pods_left(m)
    assert m.weft("run", "--as", "web", "--user", "nobody", "--", "true").returncode == 0


def test_up_ended_half_way_leaves_nothing(stood):
    stood.env["WEFT_STAND_IN"] = "no-answer"
    done = stood.weft("up", "--state", stood.state_dir, "--net", stood.net, "--bridge", stood.bridge,
                      "--timeout", "3s", check=False)
    assert done.returncode == 3 and "weft-broker" in done.stderr
    assert not stood.leftovers()


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05, 0.1, 0.2, 0.3])
def test_up_killed_at_any_moment_is_found_by_down(stood, delay):
    stood.env["WEFT_STAND_IN"] = "no-answer"
    p = subprocess.Popen([WEFT, "up", "--state", stood.state_dir, "--net", stood.net, "--bridge",
                          stood.bridge], env=stood.env, stderr=subprocess.DEVNULL)
    try:
        p.wait(delay)
    except subprocess.TimeoutExpired:
        pass
    p.kill()
    p.wait()
    stood.weft("down", "--purge", "--state", stood.state_dir, "--net", stood.net, "--bridge", stood.bridge)
    assert not stood.leftovers()


@pytest.mark.parametrize("delay", [0.01, 0.03, 0.06, 0.1, 0.15, 0.25, 0.4])
def test_run_killed_at_any_moment_is_found_by_down(stood, delay):
    m = stood.up()
    p = subprocess.Popen([WEFT, "run", "--as", "web", "--user", "nobody", "--", "sleep", "1000"],
                         env=m.env, stderr=subprocess.DEVNULL)
    try:
        p.wait(delay)
    except subprocess.TimeoutExpired:
        pass
    p.kill()
    p.wait()
    m.weft("down")
    assert not m.leftovers() and not pods_left(m)


def test_a_stubborn_control_plane_is_killed(stood):
    stood.env["WEFT_STAND_IN"] = "stubborn"
    m = stood.up()
    pid = supervisor_pid(m)
    m.weft("down")
    assert not is_alive(pid) and not m.leftovers()


def test_down_kills_only_what_is_proven(stood):
    """The pid file names a process that is not ours (the number was used again): it lives on."""
    m = stood.up()
    innocent = subprocess.Popen(["sleep", "1000"])
    try:
        start = open("/proc/%d/stat" % innocent.pid).read().rsplit(")", 1)[1].split()[19]
        pid = supervisor_pid(m)
        with open(m.run_dir + "/supervisor.pid", "w") as f:
            f.write("%d %d" % (innocent.pid, int(start) + 1))
        os.kill(pid, signal.SIGKILL)
        with open(m.run_dir + "/owners/web-1.json", "w") as f:
            json.dump({"v": 1, "namespace": "default", "pod": "web-1", "number": 1,
                       "owner": "%d %s" % (innocent.pid, start)}, f)
        m.weft("down")
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


def test_a_directory_of_somebody_else_is_not_touched(stood):
    os.makedirs(stood.run_dir)
    with open(stood.run_dir + "/thesis.txt", "w") as f:
        f.write("precious")
    done = stood.weft("up", "--state", stood.state_dir, "--net", stood.net, "--bridge", stood.bridge,
                      check=False)
    assert done.returncode == 1 and "not empty" in done.stderr
    os.makedirs(stood.state_dir)
    with open(stood.state_dir + "/letters.txt", "w") as f:
        f.write("precious")
    done = stood.weft("down", "--purge", "--state", stood.state_dir, "--net", stood.net, "--bridge",
                      stood.bridge, check=False)
    assert done.returncode == 1 and "is not removed" in done.stderr
    assert os.path.exists(stood.run_dir + "/thesis.txt") and os.path.exists(stood.state_dir + "/letters.txt")
    os.unlink(stood.run_dir + "/thesis.txt")
    os.rmdir(stood.run_dir)
    os.unlink(stood.state_dir + "/letters.txt")
    os.rmdir(stood.state_dir)


def test_an_interface_and_a_namespace_of_somebody_else_stay(stood):
    subprocess.run(["ip", "link", "add", stood.bridge, "type", "bridge"], check=True)
    subprocess.run(["ip", "netns", "add", stood.bridge + "-mine"], check=True)
    try:
        names = ["--state", stood.state_dir, "--net", stood.net, "--bridge", stood.bridge]
        up = stood.weft("up", *names, check=False)
        assert up.returncode == 1 and "not Weft's" in up.stderr
        assert not os.path.exists(stood.run_dir)
        down = stood.weft("down", *names, check=False)
        assert down.returncode == 1 and "it stays" in down.stderr
        assert subprocess.run(["ip", "link", "show", stood.bridge], stdout=subprocess.DEVNULL).returncode == 0
        assert os.path.exists("/run/netns/%s-mine" % stood.bridge)
    finally:
        subprocess.run(["ip", "link", "del", stood.bridge], check=True)
        subprocess.run(["ip", "netns", "del", stood.bridge + "-mine"], check=True)


@pytest.mark.parametrize("argv,words", [
    (["run"], "--as is missing"),
    (["run", "--as", "Web!", "--", "true"], "small letters"),
    (["run", "--as", "web", "--port", "0", "--", "true"], "no port"),
    (["run", "--as", "web", "--port", "80/smtp", "--", "true"], "the protocol is"),
    (["run", "--as", "web", "--user", "2102", "--", "true"], "not captured"),
    (["run", "--as", "web", "--user", "no-such-user", "--", "true"], "no such user"),
    (["run", "--as", "web", "--namespace", "a/b", "--", "true"], "namespace"),
    (["run", "--as", "web", "true"], "behind"),
    (["run", "--as", "web", "--zone"], "needs a value"),
    (["up", "--net", "10.0.0.0/8"], "from 16 to 24"),
    (["up", "--net", "10.214.1.0/16"], "behind the prefix"),
    (["up", "--bridge", "weft"], "bridge"),
    (["up", "--bridge", "br-0"], "bridge"),
    (["up", "--run", "/"], "root directory"),
    (["up", "--run", "/run/x/../y"], ".."),
    (["up", "--run", "/run/" + "x" * 80], "more than"),
    (["nonsense"], "no command"),
    (["stat", "--window", "0"], "--window"),
    (["stat", "-o", "xml"], "table, json or yaml"),
    (["sql"], "missing"),
    (["apply"], "-f is missing"),
    (["redirect", "nonsense"], "print, apply"),
])
def test_a_wrong_command_line_does_nothing(argv, words):
    done = subprocess.run([WEFT, *argv], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env=dict(os.environ, WEFT_RUN="/run/no-such-mesh"))
    assert done.returncode == 2 and words in done.stderr, (done.returncode, done.stderr)


def test_who_asks_without_a_mesh_is_told_so():
    for argv in (["stat"], ["edges"], ["check"], ["sql", "select 1"], ["token", "--as", "a"],
                 ["get", "services"], ["certs"], ["events"], ["run", "--as", "a", "--", "true"]):
        done = subprocess.run([WEFT, *argv], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env=dict(os.environ, WEFT_RUN="/run/no-such-mesh"))
        assert done.returncode == 3 and "weft up" in done.stderr, argv


def test_the_pages_are_those_of_this_build():
    with open(os.path.join(ROOT, "docs", "settings.md")) as f:
        page = f.read()
    made = subprocess.run([WEFT, "settings", "--markdown"], text=True, stdout=subprocess.PIPE).stdout
    assert made == page, "weft settings --markdown > docs/settings.md"
    with open(os.path.join(ROOT, "docs", "cli.md")) as f:
        page = f.read()
    listed = subprocess.run([WEFT, "help"], text=True, stdout=subprocess.PIPE).stdout
    for name in re.findall(r"^  (\S+) ", listed, re.M):
        assert "weft " + name in page, name
        shown = subprocess.run([WEFT, name, "--help"], text=True, stdout=subprocess.PIPE)
        assert shown.returncode == 0 and shown.stdout.startswith("usage: weft " + name)
