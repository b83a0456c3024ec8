"""The state directory's disk is full: no change is taken, traffic goes on, everything says why, nothing is lost."""
import os
import subprocess

import pytest

from meshes import Mesh, wait_for
from test_run import serve

SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: %s}\nspec: {ports: [{port: 80}]}\n"


@pytest.fixture
def small():
    m = Mesh()
    disk = os.path.join(m.dir, "disk")
    os.mkdir(disk)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=755", "weft-test", disk], check=True)
    m.disk, m.state_dir = disk, os.path.join(disk, "state")
    try:
        yield m.up()
    finally:
        try:
            m.down()
        finally:
            subprocess.run(["umount", "-l", disk], check=True)
            os.rmdir(disk)
            os.rmdir(m.dir)


def test_a_full_disk(small):
    web, me = serve(small), small.client("me")
    assert small.apply(SERVICE % "before", wait=False).returncode == 0
    assert small.weft("check").returncode == 0
    with open(os.path.join(small.disk, "fill"), "wb", buffering=0) as f:
        with pytest.raises(OSError):
            while True:
                f.write(bytes(4096))
    done = small.weft("apply", "-f", "-", stdin=SERVICE % "during", check=False)
    assert done.returncode == 1 and "disk full" in done.stderr and "nothing was stored" in done.stderr, done.stderr
    done = small.weft("run", "--as", "late", "--", "true", check=False)
    assert done.returncode in (1, 3) and "join token" in done.stderr and "disk" in done.stderr, done.stderr
    done = small.weft("check", check=False)
    assert done.returncode == 1 and "disk" in [line.split()[1] for line in done.stdout.splitlines()
                                               if line.startswith("no ")], done.stdout
    for _ in range(20):
        assert me.http("http://web:8080/").status == 200
    os.unlink(f.name)
    assert small.apply(SERVICE % "after").returncode == 0
    names = [s["name"] for s in small.json("get", "services")]
    assert "before" in names and "after" in names and "during" not in names
    wait_for(lambda: small.weft("check", check=False).returncode == 0, "all is well again", 15)
    wait_for(lambda: [r for r in small.json("stat") if r["name"] == "web" and r["requests"] >= 20],
             "what was counted meanwhile", 20)
    assert web.status()["weft-link"]["restarts"] == 0
