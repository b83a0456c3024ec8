"""The three ways between programs that a mesh knows: both meshed; a client outside of the mesh; a server outside of it.

    ways = Ways(mesh)
    ways.serve("rpc", [PYTHON, program, "serve"], 8080)      # meshed as rpc:8080, and outside as rpc-old:8080
    ways.run("outside", "rpc", ["curl", "http://{host}:{port}/"])

Outside is the machine itself: its end of the mesh's bridge, an address no pod has.
"""
import json
import os
import socket
import subprocess

from meshes import SLOW, wait_for

PYTHON = "/usr/bin/python3"
WAYS = ("meshed", "outside", "plain")  # meshed -> meshed, plain -> meshed, meshed -> plain


def free_port(address=""):
    with socket.socket() as s:
        s.bind((address, 0))
        return s.getsockname()[1]


def as_nobody(argv):
    return ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", *argv]


class Ways:
    def __init__(self, mesh):
        self.mesh, self.client = mesh, mesh.client("asker")
        self.gateway = mesh.net.split("/")[0].rsplit(".", 1)[0] + ".1"
        self.apps, self.ports, self.outside, self.places = {}, {}, {}, 0

    def place(self):
        """A directory for a program that runs as nobody."""
        self.places += 1
        path = os.path.join(self.mesh.dir, "place%d" % self.places)
        os.mkdir(path)
        os.chown(path, 65534, 65534)
        return path

    def serve(self, name, argv, port, replicas=1, where=WAYS, says="listening", options=(), env=None, files=None):
        """Starts it in pods and outside. {port} and {place} in the arguments and in `files` (NAME: TEXT), which are in its
        place; waits until it `says` so."""
        self.ports[name] = port
        if set(where) & {"meshed", "outside"}:
            self.apps[name] = [self.mesh.run(name, self.filled(argv, port, files), ports=[str(port)],
                                             options=options, env=env) for _ in range(replicas)]
            for app in self.apps[name]:
                self.listens(app.output, says)
        if "plain" in where:
            self.serve_outside(name, argv, port, says, files)
        return self.apps.get(name)

    @staticmethod
    def listens(output, says):
        if says:
            wait_for(lambda: says in output(), "it says %r: %s" % (says, output()), 30)

    def filled(self, argv, port, files=None):
        place = self.place()

        def fill(text):
            return text.replace("{port}", str(port)).replace("{place}", place)
        for name, text in (files or {}).items():
            with open(os.path.join(place, name), "w") as f:
                f.write(fill(text))
        return [fill(a) for a in argv]

    def serve_outside(self, name, argv, port, says, files=None):
        real, path = free_port(self.gateway), os.path.join(self.mesh.dir, name + ".outside")
        with open(path, "w") as f:
            p = subprocess.Popen(as_nobody(self.filled(argv, real, files)), stdout=f, stderr=f, stdin=subprocess.DEVNULL,
                                 start_new_session=True)
        self.outside[name] = (p, path)
        if says:
            self.listens(lambda: open(path, errors="replace").read(), says)
        old, gateway = name + "-old", self.gateway
        self.mesh.apply(json.dumps({"apiVersion": "v1", "kind": "Service", "metadata": {"name": old},
                                    "spec": {"ports": [{"port": port, "targetPort": real}]}}))
        self.mesh.apply(json.dumps({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": old + "-1", "labels": {"kubernetes.io/service-name": old}},
            "ports": [{"port": real}], "endpoints": [{"addresses": [gateway]}]}))

    def address(self, way, name, replica=0):
        """(host, port) as a client on that way would say it."""
        if way == "outside":
            app = self.apps[name][replica]
            pod = [s for s in self.mesh.json("get", "sessions") if s["pod"] == app.pod][0]
            return [a for a in pod["addresses"].split(",") if ":" not in a][0], self.ports[name]
        return (name if way == "meshed" else name + "-old"), self.ports[name]

    def run(self, way, name, argv, timeout=60, stdin=None):
        """A client's command; {host} and {port} in its arguments."""
        host, port = self.address(way, name)
        argv = [a.replace("{host}", host).replace("{port}", str(port)) for a in argv]
        if way != "outside":
            return self.client.exec(*argv, timeout=timeout, stdin=stdin)
        return subprocess.run(as_nobody(argv), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=timeout * SLOW, input=stdin)

    def until(self, way, name, argv, want, seconds=30):
        """Runs it again until it prints what is wanted; a program that has just begun may refuse at first."""
        last = []

        def says():
            last[:] = [self.run(way, name, argv)]
            return want in last[0].stdout
        try:
            wait_for(says, "%s: %s" % (way, argv[0]), seconds)
        except AssertionError as e:
            raise AssertionError("%s: %s" % (e, last)) from None
        return last[0]

    def end(self):
        for p, _ in self.outside.values():
            try:  # a shell may have started the program: the whole session, which is ours
                os.killpg(p.pid, 9)
            except ProcessLookupError:
                pass
            p.wait()
