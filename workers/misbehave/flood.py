"""A worker that speaks Node's cluster protocol by hand, and that floods its channel once the file `go` is there, in the way
that FLOOD names. It writes the file `flooding-PID` when clusterd has taken some of it."""
import json
import os
import socket
import threading
import time

PORT = int(os.environ["PORT"])
FLOOD = os.environ["FLOOD"]
MIB = 1024 * 1024
BEGUN = 4096 if FLOOD == "writes" else MIB
channel = socket.socket(fileno=int(os.environ["NODE_CHANNEL_FD"]))
listens = threading.Event()
keys = []


def say(**message):
    channel.sendall(json.dumps({"cmd": "NODE_CLUSTER", "seq": 1, **message}).encode() + b"\n")


def read():
    """Takes what comes, and answers nothing; handles are closed."""
    text = b""
    while True:
        data, fds, _, _ = socket.recv_fds(channel, 65536, 64)
        for fd in fds:
            os.close(fd)
        if not data:
            os._exit(0)
        *lines, text = (text + data).split(b"\n")
        if listens.is_set():
            continue
        answers = [json.loads(line) for line in lines]
        keys.extend(answer["key"] for answer in answers if isinstance(answer, dict) and "key" in answer)
        if keys:
            say(act="listening", address="127.0.0.1", port=PORT, addressType=4, fd=None)
            listens.set()


def query(port, index=0, data=None):
    return {"act": "queryServer", "address": "127.0.0.1", "port": port, "addressType": 4, "index": index, "data": data}


def line(**message):
    return json.dumps({"cmd": "NODE_CLUSTER", "seq": 1, **message}).encode() + b"\n"


def pieces():
    """What is written, for ever."""
    small = {
        "ready": b'"ready"\n',
        "number": b"1\n",
        "message": b'{"x":1}\n',
        "unknown": b'{"cmd":"NODE_UNKNOWN"}\n',
        "online": line(act="online"),
        "listening": line(act="listening"),
        "relay": b'{"clusterd":{"to":"agent"},"message":1}\n',
        "answers": b'{"cmd":"NODE_CLUSTER","ack":123456789,"accepted":true,"seq":7}\n',
        "servers": line(**query(PORT)) + line(act="close", key=keys[0]),
        "mixed": b'"ready"\n' + line(act="listening") + b"1\n" + line(act="online"),
    }
    if FLOOD in small:
        many = small[FLOOD] * (MIB // 4 // len(small[FLOOD]))
        while True:
            yield many
    elif FLOOD == "addresses":
        index = 0
        while True:
            yield b"".join(line(**query(0, index + n)) for n in range(500))
            index += 500
    elif FLOOD in ("long", "unfinished"):
        while True:
            yield b'{"a":"'
            for _ in range(60):
                yield b"x" * MIB
            while FLOOD == "unfinished":
                yield b""
                open("flooding-%d" % os.getpid(), "w").close()
                time.sleep(1)
            yield b'"}\n'
    elif FLOOD == "writes":
        while True:
            yield b"1\n"


threading.Thread(target=read, daemon=True).start()
say(act="online")
say(**query(PORT))
listens.wait()
while not os.path.exists("go"):
    time.sleep(0.02)
sent = 0
for piece in pieces():
    try:
        channel.sendall(piece)
    except OSError:
        os._exit(0)
    before, sent = sent, sent + len(piece)
    if before < BEGUN <= sent and FLOOD != "unfinished":
        open("flooding-%d" % os.getpid(), "w").close()
