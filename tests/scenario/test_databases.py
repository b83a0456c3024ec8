"""Databases, mail and SSH as Debian packages them, unmodified, with no protocol named anywhere: with the default list of
opaque ports and with none. No connection may come to an end of the detection timeout, on either side."""
import os
import socket
import subprocess
import textwrap

import pytest

from meshes import wait_for
from traffic import metrics, settled, total

PYTHON = "/usr/bin/python3"
NO_HINTS = {"WEFT_OPAQUE_PORTS": ""}
PG = "/usr/lib/postgresql/%s/bin" % max(os.listdir("/usr/lib/postgresql"), default="none", key=int) \
    if os.path.isdir("/usr/lib/postgresql") else ""

SMTPD = textwrap.dedent('''
    import time
    from aiosmtpd.controller import Controller
    from aiosmtpd.handlers import Sink
    c = Controller(Sink(), hostname="", port=25025)
    c.start()
    time.sleep(100000)
''')
SMTP = textwrap.dedent('''
    import smtplib, sys
    s = smtplib.SMTP(sys.argv[1], int(sys.argv[2]), timeout=15)
    s.sendmail("a@a.test", ["b@b.test"], "Subject: x\\r\\n\\r\\n" + "line of mail\\r\\n" * 5000)
    s.quit()
    print("sent")
''')


class World:
    def __init__(self, mesh, env):
        self.mesh, self.env = mesh, env
        self.me = mesh.run("client", ["sleep", "100000"], env=env)

    def place(self, name):
        path = os.path.join(self.mesh.dir, name)
        os.mkdir(path)
        os.chown(path, 65534, 65534)
        return path

    def nobody(self, *argv):
        subprocess.run(["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", *argv], check=True,
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120)

    def run(self, name, argv, port):
        return self.mesh.run(name, argv, ports=[str(port)], env=self.env)

    def ask(self, want, *argv, stdin=None):
        """Until it answers as wanted; a program that has just begun may refuse at first."""
        last = []

        def answers():
            last[:] = [self.me.exec(*argv, stdin=stdin, timeout=30)]
            return want in last[0].stdout
        wait_for(answers, "%s says %r" % (argv[0], want), 40)
        return last[0].stdout

    def no_waits(self, *servers):
        for app in (self.me, *servers):
            waits = settled(lambda a=app: total(metrics(a), "weft_detect_results_total", result="read_timeout"))
            assert waits == 0, "%s: %d connections waited for nothing" % (app.pod, waits)


@pytest.fixture(scope="module", params=[None, NO_HINTS], ids=["default list", "no list"])
def world(request):
    from meshes import Mesh
    mesh = Mesh()
    try:
        yield World(mesh.up(), request.param)
    finally:
        mesh.down()


def test_redis(world):
    server = world.run("redis", ["redis-server", "--save", "", "--protected-mode", "no", "--dir",
                                 world.place("redis")], 6379)
    world.ask("PONG", "redis-cli", "-h", "redis", "ping")
    assert world.ask("OK", "redis-cli", "-h", "redis", "-x", "set", "k", stdin="v" * 300000)
    assert world.me.exec("redis-cli", "-h", "redis", "strlen", "k").stdout.strip() == "300000"
    world.no_waits(server)


def test_postgresql(world):
    place = world.place("pg")
    world.nobody(PG + "/initdb", "-D", place + "/data", "-A", "trust", "-U", "me", "--no-sync")
    with open(place + "/data/pg_hba.conf", "w") as f:
        f.write("local all all trust\nhost all all all trust\n")
    server = world.run("pg", [PG + "/postgres", "-D", place + "/data", "-h", "*", "-k", place, "-F"], 5432)
    sql = ("psql", "-h", "pg", "-U", "me", "-d", "postgres", "-tAc")
    world.ask("1", *sql, "select 1")
    got = world.me.exec(*sql, "select length(string_agg(i::text, ',')) from generate_series(1, 100000) i")
    assert got.stdout.strip() == "588894", got
    assert len(world.me.exec(*sql, "select repeat('x', 2000000)").stdout.strip()) == 2000000
    world.no_waits(server)


def test_mariadb(world):
    place = world.place("maria")
    world.nobody("mariadb-install-db", "--datadir=" + place + "/data", "--auth-root-authentication-method=normal",
                 "--skip-test-db", "--skip-name-resolve")
    with open(place + "/init.sql", "w") as f:
        f.write("create user me@'%' identified by 'pw';\ngrant all on *.* to me@'%';\n")
    os.chmod(place + "/init.sql", 0o644)
    server = world.run("maria", ["/usr/sbin/mariadbd", "--no-defaults", "--datadir=" + place + "/data",
                                 "--socket=" + place + "/s", "--init-file=" + place + "/init.sql",
                                 "--bind-address=*", "--port=3306", "--innodb-buffer-pool-size=16M",
                                 "--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0"], 3306)
    sql = ("mariadb", "--no-defaults", "-h", "maria", "-u", "me", "-ppw", "-N", "-e")
    world.ask("1", *sql, "select 1")
    assert world.me.exec(*sql, "select length(repeat('x', 1000000))").stdout.strip() == "1000000"
    world.no_waits(server)


def test_smtp(world):
    server = world.run("mail", [PYTHON, world.mesh.python(SMTPD)], 25025)
    world.ask("sent", PYTHON, world.mesh.python(SMTP), "mail", "25025")
    world.no_waits(server)


def test_ssh(world):
    place = world.place("ssh")
    world.nobody("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place + "/key")
    server = world.run("ssh", ["/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", "-h", place + "/key", "-p", "2222",
                               "-o", "PidFile=none", "-o", "UsePAM=no"], 2222)
    with open(place + "/key.pub") as f:
        key = f.read().split()[1]
    assert key in world.ask("ssh-ed25519", "ssh-keyscan", "-T", "10", "-p", "2222", "-t", "ed25519", "ssh")
    world.no_waits(server)
    if world.env is not None:  # found out, and known from now on
        wait_for(lambda: world.mesh.sql("select 1 as n from mesh_ports where workload='ssh' and protocol='opaque'"),
                 "the lesson is stored")
    # From outside of the mesh: plain to a meshed server.
    ip = server.exec("hostname", "-I").stdout.split()[0]
    with socket.create_connection((ip, 2222), timeout=10) as s:
        assert s.recv(100).startswith(b"SSH-2.0-")


def test_ssh_outside_of_the_mesh(world):
    """Meshed to plain: the machine itself, on the bridge's address."""
    gateway = str(world.mesh.net).split("/")[0].rsplit(".", 1)[0] + ".1"
    place = world.place("outer")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place + "/key"], check=True)
    os.makedirs("/run/sshd", exist_ok=True)
    server = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", "-h", place + "/key", "-p", "12222",
                               "-o", "PidFile=none", "-o", "UsePAM=no", "-o", "ListenAddress=" + gateway],
                              stderr=subprocess.DEVNULL)
    try:
        world.ask("ssh-ed25519", "ssh-keyscan", "-T", "10", "-p", "12222", "-t", "ed25519", gateway)
        world.no_waits()
    finally:
        server.kill()
        server.wait()
