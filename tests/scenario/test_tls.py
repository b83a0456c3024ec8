"""TLS between pods and with foreign peers; the vault; renewals; the authority. Loopback only."""
import hashlib
import hmac
import os
import re
import signal
import subprocess
import time

import pytest

from tls_rig import SUITES, Rig, binary, free_port, identity, wait_for

ALPN = "transport.l5d.io/v1"


@pytest.fixture
def rig():
    r = Rig()
    try:
        yield r
    finally:
        r.done()


# ---- foreign peers, every suite, KeyUpdate both ways, the end ----

@pytest.mark.parametrize("suite", SUITES)
def test_openssl_client(rig, suite):
    pod = rig.pod("web").has_certificate()
    probe, port = pod.serve()
    client = rig.s_client(port, pod.who, rig.certificate("c", "DNS:" + identity("client")), "-ciphersuites", suite,
                          "-alpn", ALPN)
    probe.wait("established peer=%s alpn=%s sni=%s" % (identity("client"), ALPN, pod.who))
    client.wait("Verify return code: 0")
    assert client.seen(suite)
    for i, command in enumerate(["", "K\n", "k\n", "K\n", ""]):
        if command:  # a command is what a read of stdin begins with: wait before the next words
            client.say(command)
            client.wait("KEYUPDATE", at_least=i)
        client.say("hello %d\n" % i)
        client.wait("hello %d" % i)
    client.say("Q\n")
    client.ended()
    probe.wait("closed DONE")
    assert probe.seen("eof clean")


@pytest.mark.parametrize("suite", SUITES)
def test_openssl_server(rig, suite):
    pod = rig.pod("client").has_certificate()
    name = identity("web")
    server, port = rig.s_server(rig.certificate("s", "DNS:" + name), "-Verify", "3", "-verify_return_error",
                                "-ciphersuites", suite, "-alpn", ALPN)
    probe = pod.dial(port, name)
    probe.wait("established peer=%s alpn=%s" % (name, ALPN))
    for i, command in enumerate(["", "K\n", "k\n", "K\n", ""]):
        if command:
            server.say(command)
            server.wait("SSL_do_handshake ->", at_least=i)
        probe.say("ping %d\n" % i)
        server.wait("ping %d" % i)
        server.say("pong %d\n" % i)
        probe.wait("pong %d" % i)
    probe.end_input()  # our close_notify is answered by the server's
    probe.wait("eof clean")
    assert probe.ended() == 0
    probe = pod.dial(port, name)
    probe.wait("established")
    server.say("Q\n")  # OpenSSL's server closes the socket and says nothing
    probe.wait("eof truncated")


def test_our_own_key_updates_are_understood(rig):
    """rekey_after 3: OpenSSL reads a new key every third record, and so does our own reader."""
    pod = rig.pod("web").has_certificate()
    probe, port = pod.serve("3")
    client = rig.s_client(port, pod.who, None, "-quiet")
    for i in range(20):
        client.say("line %d\n" % i)
        client.wait("line %d" % i)
    dial = pod.dial(port, pod.who, True, "3")
    dial.wait("established")
    for i in range(50):
        dial.say("own %d\n" % i)
        dial.wait("own %d" % i)


def test_gnutls_client_rekeys(rig):
    pod = rig.pod("web").has_certificate()
    probe, port = pod.serve()
    cert = rig.certificate("c", "DNS:" + identity("client"))
    client = rig.process("gnutls-cli", "127.0.0.1", "-p", str(port), "--sni-hostname", pod.who, "--verify-hostname",
                         pod.who, "--x509cafile", rig.anchors(), "--x509certfile", cert[0], "--x509keyfile", cert[1],
                         "--inline-commands", "--priority", "NORMAL:-VERS-ALL:+VERS-TLS1.3")
    client.wait("Simple Client Mode")
    for i in range(3):
        client.say("before %d\n" % i)
        client.wait("before %d" % i)
        client.say("^rekey^\n")
        client.say("after %d\n" % i)
        client.wait("after %d" % i)
    client.end_input()
    probe.wait("closed")


def test_gnutls_server(rig):
    pod = rig.pod("client").has_certificate()
    name = identity("web")
    cert = rig.certificate("s", "DNS:" + name)
    port = free_port()
    server = rig.process("gnutls-serv", "--echo", "-p", str(port), "--x509certfile", cert[0], "--x509keyfile",
                         cert[1], "--x509cafile", rig.anchors(), "--priority", "NORMAL:-VERS-ALL:+VERS-TLS1.3")
    server.wait("listening on IPv4")
    probe = pod.dial(port, name, False)
    probe.wait("established peer=%s" % name)
    for i in range(5):
        probe.say("echo %d\n" % i)
        probe.wait("echo %d" % i)
    probe.end_input()


def test_hello_retry_request(rig):
    pod = rig.pod("web").has_certificate()
    probe, port = pod.serve()
    client = rig.s_client(port, pod.who, None, "-groups", "P-521:P-256", "-quiet")
    client.say("retry\n")
    client.wait("retry")


def test_pieces_of_one_to_seven_bytes(rig):
    pod = rig.pod("web").has_certificate()
    _, port = pod.serve()
    chopper = rig.chopper(port)
    dial = pod.dial(chopper.port, pod.who)
    dial.wait("established peer=%s alpn=%s" % (pod.who, ALPN))
    for i in range(200):
        dial.say("piece %d %s\n" % (i, "x" * (i * 7 % 190)))
    dial.end_input()
    assert dial.ended(30) == 0
    got = [line for line in dial.lines if line.startswith("piece")]
    assert got == ["piece %d %s" % (i, "x" * (i * 7 % 190)) for i in range(200)]


def test_data_right_behind_finished_and_half_close(rig):
    """Everything a client has to say, and its end, may come while the handshake is still being judged."""
    pod = rig.pod("web").has_certificate()
    _, port = pod.serve()
    for _ in range(20):
        r = subprocess.run(["openssl", "s_client", "-connect", "127.0.0.1:%d" % port, "-tls1_3", "-servername",
                            pod.who, "-quiet", "-no_ign_eof"], input=b"all at once\n", stdout=subprocess.PIPE,
                           stderr=subprocess.DEVNULL, timeout=10)
        assert r.returncode == 0
    dial = pod.dial(port, pod.who)
    dial.say("early\n")
    dial.end_input()
    assert dial.ended() == 0
    assert dial.seen("early") and dial.seen("eof clean")


# ---- refusals ----

def test_server_side_refusals(rig):
    pod = rig.pod("web").has_certificate()
    probe, port = pod.serve()
    me = "DNS:" + identity("client")
    cases = [
        (rig.certificate("strange", me, rig.foreign_ca()), "UNKNOWN_ISSUER", "unknown ca"),
        (rig.certificate("old", me, ago="-3d"), "EXPIRED", "certificate expired"),
        (rig.certificate("new", me, ago="+3d"), "EXPIRED", "bad certificate"),
        (rig.certificate("two", me + "," + "DNS:" + identity("web")), "WRONG_IDENTITY", "bad certificate"),
        (rig.certificate("wild", "DNS:*.default.serviceaccount.identity.weft.cluster.local"), "WRONG_IDENTITY", ""),
        (rig.certificate("cn", "", subject="/CN=" + identity("client")), "WRONG_IDENTITY", ""),
        (rig.certificate("ip", "IP:10.0.0.1"), "WRONG_IDENTITY", ""),
        (rig.certificate("mail", me + ",email:a@b.c"), "WRONG_IDENTITY", ""),
        (rig.certificate("eku", me, eku="serverAuth"), "UNKNOWN_ISSUER", ""),
    ]
    for i, (cert, code, alert) in enumerate(cases):
        client = rig.s_client(port, pod.who, cert)
        probe.wait("failed code=", at_least=i + 1)
        last = [line for line in probe.lines if "failed" in line][-1]
        assert "code=" + code in last, (cert[0], last)
        client.wait("alert " + alert)
    assert not probe.seen("established")
    ok = rig.s_client(port, pod.who, rig.certificate("uri", "URI:spiffe://cluster.local/ns/a/sa/b"))
    probe.wait("established peer=spiffe://cluster.local/ns/a/sa/b")
    ok.say("Q\n")


def test_not_for_us(rig):
    pod = rig.pod("web").has_certificate()
    probe, port = pod.serve()
    rig.s_client(port, identity("somebody")).wait("unrecognized name")
    rig.s_client(port, "").wait("unrecognized name")
    probe.wait("failed code=WRONG_IDENTITY", at_least=2)
    rig.process("openssl", "s_client", "-connect", "127.0.0.1:%d" % port, "-tls1_2", "-servername",
                pod.who).wait("alert protocol version")
    probe.wait("failed code=NOT_TLS13")
    subprocess.run(["curl", "-s", "-m", "3", "http://127.0.0.1:%d/" % port], check=False)
    probe.wait("failed code=NOT_TLS13", at_least=2)


def test_no_client_certificate_is_let_through_without_identity(rig):
    pod = rig.pod("web").has_certificate()
    probe, port = pod.serve()
    rig.s_client(port, pod.who).wait("Verify return code: 0")
    probe.wait("established peer= alpn= sni=" + pod.who)


def test_client_side_refusals(rig):
    pod = rig.pod("client").has_certificate()
    name = identity("web")
    for cert, code in [
            (rig.certificate("s1", "DNS:" + identity("imposter")), "WRONG_IDENTITY"),
            (rig.certificate("s2", "DNS:" + name, rig.foreign_ca()), "UNKNOWN_ISSUER"),
            (rig.certificate("s3", "DNS:" + name, ago="-3d"), "EXPIRED"),
            (rig.certificate("s4", "", subject="/CN=" + name), "WRONG_IDENTITY")]:
        server, port = rig.s_server(cert)
        dial = pod.dial(port, name)
        dial.wait("failed code=" + code)
        server.wait("alert")
    server, port = rig.s_server(rig.certificate("s5", "DNS:" + name), "-CAfile", rig.foreign_ca("third")[0],
                                "-Verify", "1", "-verify_return_error")
    dial = pod.dial(port, name)  # T-07: established first, judged afterwards
    dial.wait("closed PEER_ALERT")


def test_certificate_chain_of_30_kb_and_one_too_large(rig):
    pod = rig.pod("client").has_certificate()
    name = identity("web")
    many = ",".join("URI:spiffe://cluster.local/%s/%d" % ("x" * 150, i) for i in range(170))
    cert = rig.certificate("big", "DNS:%s,%s" % (name, many))
    assert os.path.getsize(cert[0]) > 30000
    server, port = rig.s_server(cert)
    pod.dial(port, name).wait("failed code=WRONG_IDENTITY")  # read whole, and refused for its names
    many = ",".join("URI:spiffe://cluster.local/%s/%d" % ("x" * 150, i) for i in range(500))
    server, port = rig.s_server(rig.certificate("huge", "DNS:%s,%s" % (name, many)))
    pod.dial(port, name).wait("failed code=MALFORMED")


# ---- the vault ----

def test_kill_9_under_traffic_and_back_from_the_vault(rig):
    pod = rig.pod("web").has_certificate()
    probe, port = pod.serve()
    dial = pod.dial(port, pod.who)
    dial.wait("established")
    probe.wait("established")  # a client is so before its server is
    asked = len(pod.link.asked)
    pod.link.fault = lambda fields: None  # from here on nobody issues anything
    times = []
    for round_ in range(3):
        pod.tls.p.send_signal(signal.SIGKILL)
        pod.tls.ended()
        for i in range(100):  # established traffic does not notice
            dial.say("alive %d.%d\n" % (round_, i))
        dial.wait("alive %d.99" % round_)
        begin = time.monotonic()
        pod.start()
        again = pod.dial(port, pod.who)
        again.wait("established peer=" + pod.who)
        times.append(round((time.monotonic() - begin) * 1000))
        assert pod.tls.seen("certificate taken from the vault")
    print("kill -9 to the next handshake, with the processes' starts: %s ms" % times)
    dial.say("at last\n")
    dial.wait("at last")
    assert len(pod.link.asked) == asked


def test_kill_9_while_the_first_answer_is_under_way(rig):
    """The token was used, the answer was lost with the process, the token file is gone: the successor asks again
    with the same key."""
    rig.control()
    pod = rig.pod("web", is_secret=False)
    lost = []

    def swallow(f):
        lost.append(rig.authority.sign(pod.who, *f[1:6]))
        return None

    pod.tls.kill()
    pod.link.fault = swallow
    os.ftruncate(pod.vault, 0)  # as it was before anything was issued
    with open(os.open(pod.token_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
        f.write(rig.authority.token(pod.who))
    pod.start()
    wait_for(lambda: lost, "a question")
    assert lost[0][0] == ""
    pod.tls.p.send_signal(signal.SIGKILL)
    pod.tls.ended()
    os.unlink(pod.token_file)
    pod.link.fault = None
    pod.start()
    pod.has_certificate()


def test_without_anything_to_prove_it_says_so(rig):
    rig.control()
    pod = rig.pod("web", has_token=False)
    wait_for(lambda: pod.link.states, "a state")
    key, good, text, value = pod.link.states[-1]
    assert (key, good, value) == ("certificate", False, 0) and "no join token" in text
    probe, port = pod.serve()
    rig.s_client(port, pod.who).wait("alert internal error")
    probe.wait("failed code=NO_CERTIFICATE_YET")


# ---- renewal ----

def serial_of(port, name):
    out = subprocess.run(["openssl", "s_client", "-connect", "127.0.0.1:%d" % port, "-tls1_3", "-servername", name,
                          "-showcerts"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.DEVNULL, timeout=10).stdout
    leaf = re.search(b"-----BEGIN.*?-----END CERTIFICATE-----", out, re.S).group(0)
    return subprocess.run(["openssl", "x509", "-noout", "-serial", "-pubkey"], input=leaf, stdout=subprocess.PIPE,
                          timeout=10).stdout


def test_renewal_with_a_fresh_key(rig):
    rig.control(WEFT_CERTIFICATE_LIFETIME="6s")
    pod = rig.pod("web").has_certificate()
    probe, port = pod.serve()
    dial = pod.dial(port, pod.who)
    dial.wait("established")
    first = serial_of(port, pod.who)
    pod.tls.wait("certificate in force", at_least=3, seconds=20)
    second = serial_of(port, pod.who)
    assert first.split(b"\n")[0] != second.split(b"\n")[0]
    assert first.split(b"\n", 1)[1] != second.split(b"\n", 1)[1], "the key is another one"
    dial.say("still here\n")
    dial.wait("still here")
    assert any(e[1] == "CERTIFICATE_RENEWED" for e in pod.link.events)
    assert pod.link.asked[-1][2] == "" and pod.link.asked[-1][4], "proved by the old certificate"
    assert pod.link.states[-1][1] is True


def test_failing_renewal_is_loud_and_recovers(rig):
    rig.control(WEFT_CERTIFICATE_LIFETIME="8s")
    pod = rig.pod("web").has_certificate()
    probe, port = pod.serve()
    pod.link.fault = lambda fields: ("UNAVAILABLE", "the test says no", b"")
    wait_for(lambda: any(e[1] == "CERTIFICATE_RENEWAL_FAILED" for e in pod.link.events), "an event", 15)
    wait_for(lambda: pod.link.states[-1][1] is False, "a bad state", 15)
    rig.s_client(port, pod.who).wait("Verify return code: 0")  # in force as long as it lives
    wait_for(lambda: "expired" in pod.link.states[-1][2], "expiry", 30)
    rig.s_client(port, pod.who).wait("alert internal error")
    probe.wait("failed code=EXPIRED")
    pod.link.fault = None  # an expired certificate still proves who asks, for a day
    wait_for(lambda: pod.link.states[-1][1] is True, "a good state again", 30)
    rig.s_client(port, pod.who).wait("Verify return code: 0", 5)


def test_a_wrong_certificate_is_not_put_in_force(rig):
    rig.control(WEFT_CERTIFICATE_LIFETIME="4s")
    pod = rig.pod("web").has_certificate()
    wrong = open(rig.certificate("x", "DNS:" + pod.who)[0], "rb").read()  # for another key
    pod.link.fault = lambda fields: ("", "", wrong)
    pod.tls.wait("code=OTHER_KEY", 15)
    pod.link.fault = lambda fields: ("", "", b"nonsense")
    pod.tls.wait("code=BAD_CERTIFICATE", 15)
    pod.link.fault = None
    pod.tls.wait("certificate in force", at_least=2, seconds=20)


# ---- trust ----

def test_anchors_are_pushed_live(rig):
    pod = rig.pod("web").has_certificate()
    probe, port = pod.serve()
    wait_for(lambda: ("trust", 1) in pod.link.applied, "applied 1")
    ca = rig.foreign_ca("second")
    cert = rig.certificate("f", "DNS:" + identity("foreign"), ca)
    rig.s_client(port, pod.who, cert).wait("unknown ca")
    pod.link.push_trust(open(ca[0], "rb").read())
    wait_for(lambda: ("trust", 2) in pod.link.applied, "applied 2")
    rig.s_client(port, pod.who, cert)
    probe.wait("established peer=" + identity("foreign"))
    pod.tls.kill()  # the vault remembers the anchors too
    pod.link.fault = lambda fields: None
    pod.start()
    probe.wait("listening")
    rig.s_client(port, pod.who, cert)
    probe.wait("established peer=" + identity("foreign"), at_least=2)
    pod.link.push_trust(b"garbage\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    pod.tls.wait("trust anchors refused")
    assert ("trust", 3) not in pod.link.applied


# ---- bounds ----

def test_storm_and_bound(rig):
    pod = rig.pod("web", WEFT_HANDSHAKES_MAX="4").has_certificate()
    probe, port = pod.serve()  # the probe's own bound is 64: weft-tls says BUSY beyond its four
    clients = [rig.process("openssl", "s_client", "-connect", "127.0.0.1:%d" % port, "-tls1_3", "-servername",
                           pod.who) for _ in range(30)]
    wait_for(lambda: len([x for x in probe.lines if "established" in x or "code=BUSY" in x]) >= 30, "all settled", 20)
    for c in clients:
        c.kill()
    dial = pod.dial(port, pod.who)
    dial.wait("established")


def test_a_storm_between_two_pods(rig):
    web, client = rig.pod("web").has_certificate(), rig.pod("client").has_certificate()
    probe, port = web.serve()
    storm = rig.process(binary("weft-tls-probe"), "storm", client.run, str(port), web.who, "300", "64")
    print(storm.wait("storm ok=300 failed=0", 60))
    probe.wait("closed DONE", at_least=300)
    assert probe.seen("peer=" + client.who, 300)


# ---- the authority ----

def csr_for(rig, name, sans, key=None, subject="/", *more):
    key = key or rig.key(name + ".key")
    args = ["-addext", "subjectAltName=" + sans] if sans else []
    return rig.sh("openssl", "req", "-new", "-key", key, "-subj", subject, *args, *more, "-outform", "DER")


def prove(token, csr):
    _, token_id, secret = token.split(".")
    return token_id, hmac.new(bytes.fromhex(secret), hashlib.sha256(csr).digest(), hashlib.sha256).digest()


def test_authority_tokens(rig):
    a = rig.control()
    me, other = identity("a"), identity("b")
    csr = csr_for(rig, "k", "DNS:" + me)
    token = a.token(me)
    tid, mac = prove(token, csr)
    assert a.sign(me, csr, tid, bytes(32))[0] == "BAD_PROOF"
    assert a.sign(me, csr, tid, mac[:31])[0] == "BAD_PROOF"
    assert a.sign(me, csr, "0" * 16, mac)[0] == "BAD_TOKEN"
    assert a.sign(other, csr_for(rig, "k2", "DNS:" + other), tid, mac)[0] == "BAD_TOKEN"
    assert a.sign(me, csr)[0] == "BAD_PROOF"
    got = a.sign(me, csr, tid, mac)
    assert got[0] == "" and got[3] == me and got[2].count(b"BEGIN CERTIFICATE") == 2
    assert a.sign(me, csr, tid, mac)[0] == "", "the same question again: the answer may have been lost"
    second = csr_for(rig, "k3", "DNS:" + me)
    assert a.sign(me, second, *prove(token, second))[0] == "BAD_TOKEN", "another key"
    open_token = a.token(me)
    a.stop(signal.SIGKILL)
    a.start()
    assert a.sign(me, second, *prove(token, second))[0] == "BAD_TOKEN", "used, also after a restart"
    assert a.sign(me, second, *prove(open_token, second))[0] == "", "open, also after a restart"
    short = a.token(me, 1)
    time.sleep(0.05)
    assert a.sign(me, second, *prove(short, second))[0] == "BAD_TOKEN", "expired"
    assert a.token("not an identity") == ""
    assert a.token("web.default.svc") == ""


def test_authority_requests(rig):
    a = rig.control()
    me = identity("a")

    def code(csr):
        return a.sign(me, csr, *prove(a.token(me), csr))[0]

    p384, rsa = rig.file("p384"), rig.file("rsa")
    rig.sh("openssl", "ecparam", "-name", "secp384r1", "-genkey", "-noout", "-out", p384)
    rig.sh("openssl", "genrsa", "-out", rsa, "2048")
    good = csr_for(rig, "g", "DNS:" + me)
    assert code(good) == ""
    assert code(csr_for(rig, "cn", "DNS:" + me, None, "/CN=a")) == "BAD_CSR"
    for name, csr in [
            ("no san", csr_for(rig, "x1", "")), ("two", csr_for(rig, "x2", "DNS:%s,DNS:%s" % (me, me))),
            ("other", csr_for(rig, "x3", "DNS:" + identity("b"))), ("ip", csr_for(rig, "x4", "IP:1.2.3.4")),
            ("uri", csr_for(rig, "x5", "URI:spiffe://a/b")), ("mail", csr_for(rig, "x6", "DNS:%s,email:a@b" % me)),
            ("p384", csr_for(rig, "", "DNS:" + me, p384)), ("rsa", csr_for(rig, "", "DNS:" + me, rsa)),
            ("tail", good + b"\0"), ("cut", good[:-1]), ("empty", b""), ("noise", os.urandom(300)),
            ("flipped", good[:-5] + bytes([good[-5] ^ 1]) + good[-4:])]:
        assert code(csr) == "BAD_CSR", name
    # Wishes are not granted: a CA request gets a workload's certificate.
    wish = csr_for(rig, "w", "DNS:" + me, None, "/", "-addext", "basicConstraints=CA:TRUE")
    chain = a.sign(me, wish, *prove(a.token(me), wish))[2]
    text = rig.sh("openssl", "x509", "-noout", "-text", stdin=chain).decode()
    assert "CA:FALSE" in text and "Digital Signature" in text and "CA:TRUE" not in text
    assert "TLS Web Server Authentication, TLS Web Client Authentication" in text
    assert re.search(r"Subject: *\n", text) and "DNS:" + me in text
    leaf = rig.file("leaf.pem", chain)
    rig.sh("openssl", "verify", "-x509_strict", "-CAfile", rig.anchors(), "-untrusted", leaf, leaf)


def test_authority_renewals(rig):
    a = rig.control(WEFT_CERTIFICATE_LIFETIME="3s")
    me = identity("a")
    key = rig.key("me.key")
    csr = csr_for(rig, "", "DNS:" + me, key)
    chain = a.sign(me, csr, *prove(a.token(me), csr))[2]
    old = rig.sh("openssl", "x509", "-outform", "DER", stdin=chain)
    fresh = csr_for(rig, "fresh", "DNS:" + me)
    signature = rig.sh("openssl", "dgst", "-sha256", "-sign", key, stdin=b"weft renew v1" + fresh)
    stranger = rig.sh("openssl", "dgst", "-sha256", "-sign", rig.key("s.key"), stdin=b"weft renew v1" + fresh)
    bare = rig.sh("openssl", "dgst", "-sha256", "-sign", key, stdin=fresh)
    foreign, foreign_key = rig.certificate("ff", "DNS:" + me, rig.foreign_ca())
    foreign_sig = rig.sh("openssl", "dgst", "-sha256", "-sign", foreign_key, stdin=b"weft renew v1" + fresh)
    foreign_der = rig.sh("openssl", "x509", "-in", foreign, "-outform", "DER")
    assert a.sign(me, fresh, "", b"", old, signature)[0] == ""
    assert a.sign(me, fresh, "", b"", old, stranger)[0] == "BAD_PROOF"
    assert a.sign(me, fresh, "", b"", old, bare)[0] == "BAD_PROOF"
    assert a.sign(me, csr, "", b"", old, signature)[0] == "BAD_PROOF", "for another request"
    assert a.sign(me, fresh, "", b"", foreign_der, foreign_sig)[0] == "BAD_PROOF"
    assert a.sign(identity("b"), csr_for(rig, "b", "DNS:" + identity("b")), "", b"", old, signature)[0] == "BAD_PROOF"
    assert a.sign(me, fresh, "", b"", old[:-1], signature)[0] == "BAD_PROOF"
    time.sleep(3.2)
    assert a.sign(me, fresh, "", b"", old, signature)[0] == "", "expired for less than a day"
    ancient, ancient_key = rig.certificate("anc", "DNS:" + me, ago="-3d")
    der = rig.sh("openssl", "x509", "-in", ancient, "-outform", "DER")
    sig = rig.sh("openssl", "dgst", "-sha256", "-sign", ancient_key, stdin=b"weft renew v1" + fresh)
    answer = a.sign(me, fresh, "", b"", der, sig)
    assert answer[0] == "BAD_PROOF" and "24 hours" in answer[1]


def test_authority_files(rig):
    a = rig.control()
    root, me = a.anchors(), identity("a")
    for name in os.listdir(a.path("")):
        assert os.stat(a.path(name)).st_mode & 0o777 == 0o600, name

    def restart(expect_ready=True):
        a.stop()
        a.start(expect_ready)

    restart()
    assert a.anchors() == root
    # A torn or missing issuer is made anew by the whole root; the trust anchors stay.
    for damage in (lambda: os.unlink(a.path("issuer.key")), lambda: os.truncate(a.path("issuer.crt"), 50),
                   lambda: os.rename(a.path("issuer.crt"), a.path("x")),
                   lambda: open(a.path("issuer.key"), "wb").write(open(a.path("root.key"), "rb").read())):
        a.stop()
        damage()
        a.start()
        assert a.anchors() == root
        csr = csr_for(rig, "k", "DNS:" + me)
        assert a.sign(me, csr, *prove(a.token(me), csr))[0] == ""
    # Tokens: damaged ones are put aside.
    a.token(me)
    a.stop()
    os.truncate(a.path("tokens"), os.path.getsize(a.path("tokens")) - 10)
    a.start()
    assert os.path.exists(a.path("tokens.bad"))
    # The root's key may be elsewhere.
    a.stop()
    os.rename(a.path("root.key"), a.path("away"))
    a.start()
    a.stop()
    os.rename(a.path("away"), a.path("root.key"))

    def refused(word, spoil, mend):
        spoil()
        a.start(expect_ready=False)
        assert a.process.ended() == 1
        assert a.process.seen(word), a.process.lines
        a.process.kill()
        mend()

    refused("issuer.key", lambda: os.chmod(a.path("issuer.key"), 0o640), lambda: os.chmod(a.path("issuer.key"), 0o600))
    refused("mode=", lambda: os.chmod(a.path(""), 0o755), lambda: os.chmod(a.path(""), 0o700))
    keep = open(a.path("root.crt"), "rb").read()
    refused("root.crt", lambda: os.truncate(a.path("root.crt"), 100),
            lambda: open(a.path("root.crt"), "wb").write(keep))
    refused("put it back", lambda: os.rename(a.path("root.crt"), a.path("y")),
            lambda: os.rename(a.path("y"), a.path("root.crt")))
    key = open(a.path("root.key"), "rb").read()
    refused("not the key of root.crt",
            lambda: open(a.path("root.key"), "wb").write(open(rig.key("z"), "rb").read()),
            lambda: open(a.path("root.key"), "wb").write(key))
    a.start()
    assert a.anchors() == root


def test_issuer_renewed_at_half_of_its_life(rig):
    a = rig.control(WEFT_ISSUER_LIFETIME="20m")  # it begins 5 minutes back: half is over in 7.5 minutes
    me, key = identity("a"), rig.key("me.key")
    csr = csr_for(rig, "", "DNS:" + me, key)
    chain = a.sign(me, csr, *prove(a.token(me), csr))[2]
    old = rig.sh("openssl", "x509", "-outform", "DER", stdin=chain)
    before = open(a.path("issuer.crt"), "rb").read()
    a.stop()
    a.settings.update(LD_PRELOAD="/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1", FAKETIME="+8m",
                      WEFT_CONFINE="false")
    a.start()
    assert open(a.path("issuer.crt"), "rb").read() != before
    assert before in open(a.path("former.crt"), "rb").read()
    fresh = csr_for(rig, "fresh", "DNS:" + me)
    signature = rig.sh("openssl", "dgst", "-sha256", "-sign", key, stdin=b"weft renew v1" + fresh)
    got = a.sign(me, fresh, "", b"", old, signature)
    assert got[0] == "", "a certificate of the former issuer renews itself"
