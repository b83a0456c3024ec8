"""Fixtures of the scenarios. They run as root and make network namespaces of their own."""
import os
import subprocess

import pytest

from meshes import WEFT, Mesh


def pytest_configure(config):
    config.addinivalue_line("markers", "asan: also run against the sanitizer build")


@pytest.fixture(scope="session", autouse=True)
def built():
    assert os.access(WEFT, os.X_OK), "%s is not built (WEFT_BUILD)" % WEFT
    assert os.geteuid() == 0, "scenarios need root"


@pytest.fixture
def mesh():
    """A mesh of its own for one test."""
    m = Mesh()
    try:
        yield m.up()
    finally:
        m.down()


@pytest.fixture(scope="module")
def shared_mesh():
    """A mesh for all tests of a file that do not disturb each other."""
    m = Mesh()
    try:
        yield m.up()
    finally:
        m.down()


class Lab:
    """Namespaces on a bridge without Weft's processes, for tests of the redirect alone."""

    def __init__(self, name):
        self.name = name
        self.spaces = []
        self.processes = []

    def ip(self, *args):
        subprocess.run(["ip", *args], check=True)

    def add(self, number):
        """A namespace with eth0 = 10.199.7.NUMBER and fd99:7::NUMBER."""
        ns = "%s-%d" % (self.name, number)
        if not self.spaces:
            self.ip("link", "add", self.name, "type", "bridge")
            self.spaces.append(None)
            self.ip("addr", "add", "10.199.7.1/24", "dev", self.name)
            self.ip("addr", "add", "fd99:7::1/64", "dev", self.name, "nodad")
            self.ip("link", "set", self.name, "up")
        self.ip("netns", "add", ns)
        self.spaces.append(ns)
        self.ip("link", "add", "%sv%d" % (self.name, number), "type", "veth", "peer", "name", "eth0",
                "netns", ns)
        self.ip("link", "set", "%sv%d" % (self.name, number), "master", self.name, "up")
        self.ip("-n", ns, "link", "set", "lo", "up")
        self.ip("-n", ns, "addr", "add", "10.199.7.%d/24" % number, "dev", "eth0")
        self.ip("-n", ns, "addr", "add", "fd99:7::%x/64" % number, "dev", "eth0", "nodad")
        self.ip("-n", ns, "link", "set", "eth0", "up")
        self.ip("-n", ns, "route", "add", "default", "via", "10.199.7.1")
        self.ip("-n", ns, "route", "add", "::/0", "via", "fd99:7::1")
        return ns

    def popen(self, ns, *argv, uid=0, **kw):
        command = ["nsenter", "--net=/run/netns/" + ns, "setpriv", "--reuid", str(uid), "--regid", str(uid),
                   "--clear-groups", *argv]
        p = subprocess.Popen(command, text=True, **kw)
        self.processes.append(p)
        return p

    def exec(self, ns, *argv, uid=0, timeout=20):
        return subprocess.run(["nsenter", "--net=/run/netns/" + ns, "setpriv", "--reuid", str(uid), "--regid",
                               str(uid), "--clear-groups", *argv], text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=timeout)

    def done(self):
        for p in self.processes:
            p.kill()
            p.wait()
            for f in (p.stdin, p.stdout, p.stderr):
                if f is not None:
                    f.close()
        for ns in reversed(self.spaces):
            if ns is None:
                subprocess.run(["ip", "link", "del", self.name], check=False)
            else:  # the link first: a namespace's end takes its links along, but later
                subprocess.run(["ip", "-n", ns, "link", "del", "eth0"], check=False)
                subprocess.run(["ip", "netns", "del", ns], check=False)


@pytest.fixture
def lab():
    made = Lab("wl%05x" % (os.getpid() & 0xfffff))
    try:
        yield made
    finally:
        made.done()
