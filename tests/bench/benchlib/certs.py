"""Root, issuer and leaves as Weft's own authority makes them: ECDSA P-256, leaf + issuer on the wire."""
import os
import subprocess
from types import SimpleNamespace

from . import procs

NAME = "server.default.serviceaccount.identity.weft.cluster.local"


def _openssl(*args, cwd):
    subprocess.run(["openssl", *args], cwd=cwd, check=True, capture_output=True, env=procs.env())


def _leaf(d, name, san):
    _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.key", cwd=d)
    _openssl("req", "-new", "-key", f"{name}.key", "-subj", f"/CN={name}", "-out", f"{name}.csr", cwd=d)
    with open(os.path.join(d, f"{name}.ext"), "w") as f:
        f.write(f"subjectAltName=DNS:{san}\nextendedKeyUsage=serverAuth,clientAuth\nkeyUsage=digitalSignature\n")
    _openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "issuer.crt", "-CAkey", "issuer.key", "-CAcreateserial",
             "-days", "2", "-extfile", f"{name}.ext", "-out", f"{name}.leaf", cwd=d)
    with open(os.path.join(d, f"{name}.crt"), "w") as out:  # chain
        for part in (f"{name}.leaf", "issuer.crt"):
            out.write(open(os.path.join(d, part)).read())
    with open(os.path.join(d, f"{name}.pem"), "w") as out:  # chain + key, as HAProxy wants it
        for part in (f"{name}.crt", f"{name}.key"):
            out.write(open(os.path.join(d, part)).read())


def make(work):
    d = os.path.join(work, "pki")
    os.mkdir(d)
    _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "root.key", cwd=d)
    _openssl("req", "-x509", "-new", "-key", "root.key", "-days", "2", "-subj", "/CN=bench root", "-out", "root.crt",
             cwd=d)
    _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "issuer.key", cwd=d)
    _openssl("req", "-new", "-key", "issuer.key", "-subj", "/CN=bench issuer", "-out", "issuer.csr", cwd=d)
    with open(os.path.join(d, "issuer.ext"), "w") as f:
        f.write("basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\n")
    _openssl("x509", "-req", "-in", "issuer.csr", "-CA", "root.crt", "-CAkey", "root.key", "-CAcreateserial",
             "-days", "2", "-extfile", "issuer.ext", "-out", "issuer.crt", cwd=d)
    _leaf(d, "server", NAME)
    _leaf(d, "client", "client.default.serviceaccount.identity.weft.cluster.local")
    p = {k: os.path.join(d, k) for k in os.listdir(d)}
    return SimpleNamespace(dir=d, name=NAME, ca=p["root.crt"], server_crt=p["server.crt"], server_key=p["server.key"],
                           server_pem=p["server.pem"], client_crt=p["client.crt"], client_key=p["client.key"],
                           client_pem=p["client.pem"])
