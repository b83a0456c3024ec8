"""The application of the TCP loads.   tcp_peer.py sink|echo PORT COUNT_FILE

sink: takes all bytes and writes their number to COUNT_FILE ten times a second. echo: sends every byte back."""
import asyncio
import os
import socket
import sys
import threading
import time

received = [0] * 4096


def swallow(conn, i):
    room = memoryview(bytearray(1 << 20))
    while n := conn.recv_into(room):
        received[i] += n
    conn.close()


def sink(port, path):
    def report():
        while True:
            with open(path + ".new", "w") as f:
                f.write(str(sum(received)))
            os.rename(path + ".new", path)
            time.sleep(0.1)

    s = socket.create_server(("0.0.0.0", port), backlog=1024)
    threading.Thread(target=report, daemon=True).start()
    i = 0
    while True:
        conn, _ = s.accept()
        threading.Thread(target=swallow, args=(conn, i % len(received)), daemon=True).start()
        i += 1


async def echo(port):
    async def serve(r, w):
        try:
            while b := await r.read(65536):
                w.write(b)
                await w.drain()
        except OSError:
            pass
        w.close()

    server = await asyncio.start_server(serve, "0.0.0.0", port, backlog=4096)
    await server.serve_forever()


if sys.argv[1] == "sink":
    sink(int(sys.argv[2]), sys.argv[3])
else:
    asyncio.run(echo(int(sys.argv[2])))
