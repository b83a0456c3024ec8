"""A WebSocket server and its clients (python3-websockets). Not a test by itself: test_websocket.py copies it into its mesh.

    ws_app.py serve PORT                   prints "listening"
    ws_app.py talk HOST PORT NAME [PATH]   the conversation of that name, prints "fine"
"""
import asyncio
import os
import sys

import websockets

MIB = 1 << 20
ends = {}  # what became of the connections of a path: [code, reason]


async def handler(ws, path=None):
    path = path or ws.path
    kind, _, key = path.strip("/").rpartition("/")[2].partition("-")
    try:
        if kind == "close":
            await ws.recv()
            await ws.close(4321, "the server has enough")
        elif kind == "push":
            await asyncio.sleep(3)
            for i in range(5):
                await ws.send("push %d" % i)
            await ws.recv()
        elif kind == "die":
            await ws.recv()
            ws.transport.abort()
        elif kind == "ended":
            while True:
                other = await ws.recv()
                while other not in ends:
                    await asyncio.sleep(0.02)
                await ws.send("%s %s" % ends[other])
        elif kind == "ping":
            await ws.recv()
            await asyncio.wait_for(await ws.ping(b"are you there"), 10)
            await ws.send("it was")
            await ws.wait_closed()
        else:
            async for m in ws:
                await ws.send(m)
    except websockets.ConnectionClosed:
        pass
    await ws.wait_closed()
    ends[key] = (ws.close_code, ws.close_reason or "-")


async def serve(port):
    async with websockets.serve(handler, None, port, ping_interval=None, max_size=1 << 27):
        print("listening", flush=True)
        await asyncio.Future()


def connect(base, path, **kw):
    return websockets.connect(base + path, ping_interval=None, max_size=1 << 27, open_timeout=20, **kw)


async def became_of(base, key):
    async with connect(base, "/ended-") as ws:
        await ws.send(key)
        return await asyncio.wait_for(ws.recv(), 15)


async def talk_echo(base):
    for zip in ("deflate", None):
        async with connect(base, "/echo-", compression=zip) as ws:
            for n in (0, 1, 125, 126, 65535, 65536, 5 * MIB):
                await ws.send("\u00e4" * n)
                assert await ws.recv() == "\u00e4" * n, n
                b = os.urandom(n)
                await ws.send(b)
                assert await ws.recv() == b, n
            await ws.send([b"in ", b"three ", b"frames"])
            assert await ws.recv() == b"in three frames"
            assert bool(ws.extensions) == (zip is not None), "compression is for the two ends to agree on"


async def talk_ping(base):
    async with connect(base, "/echo-") as ws:
        for i in range(50):
            await asyncio.wait_for(await ws.ping(b"%d" % i), 10)
    async with connect(base, "/ping-") as ws:
        await ws.send("go")
        assert await ws.recv() == "it was"


async def talk_close(base):
    key = str(os.getpid())
    for code, reason in ((1000, "done"), (1001, ""), (4001, "r" * 100)):
        async with connect(base, "/echo-" + key) as ws:
            await ws.close(code, reason)
        assert (ws.close_code, ws.close_reason) == (code, reason)
        want = "%d %s" % (code, reason or "-")
        for _ in range(200):
            if await became_of(base, key) == want:
                break
            await asyncio.sleep(0.02)
        else:
            raise AssertionError(await became_of(base, key))
    async with connect(base, "/close-") as ws:
        await ws.send("x")
        await ws.wait_closed()
        assert (ws.close_code, ws.close_reason) == (4321, "the server has enough")


async def talk_push(base):
    """Nobody says anything for three seconds, then the server does."""
    async with connect(base, "/push-") as ws:
        assert [await ws.recv() for _ in range(5)] == ["push %d" % i for i in range(5)]
        await ws.send("x")


async def talk_parallel(base):
    async def one(k):
        async with connect(base, "/echo-") as ws:
            for i in range(20):
                await ws.send("%d of %d" % (i, k))
                assert await ws.recv() == "%d of %d" % (i, k)
    await asyncio.gather(*[one(k) for k in range(100)])


async def talk_abrupt(base):
    """No close frame: 1006 at the other end, and at once."""
    key = "dead%d" % os.getpid()
    async with connect(base, "/echo-" + key) as ws:
        await ws.send("x")
        await ws.recv()
        ws.transport.abort()
    assert await became_of(base, key) == "1006 -"
    async with connect(base, "/die-") as ws:
        await ws.send("x")
        await asyncio.wait_for(ws.wait_closed(), 10)
        assert ws.close_code == 1006


async def talk_stream(base):
    """Many messages one way while the other side reads slowly, both ways at once."""
    async with connect(base, "/echo-", compression=None) as ws:
        async def send():
            for i in range(300):
                await ws.send(b"%08d" % i + bytes(50000))
        sender = asyncio.create_task(send())
        for i in range(300):
            m = await ws.recv()
            assert m[:8] == b"%08d" % i and len(m) == 50008
        await sender


def main():
    if sys.argv[1] == "serve":
        return asyncio.run(serve(int(sys.argv[2])))
    host, port, name = sys.argv[2:5]
    asyncio.run(globals()["talk_" + name]("ws://%s:%s%s" % (host, port, sys.argv[5] if len(sys.argv) > 5 else "")))
    print("fine", flush=True)


main()
