"""A web server that speaks Node's cluster protocol by hand. In the slot that DEAF names it never reads its channel again
once the file `deaf` is there; its own accept queue it leaves alone too."""
import array
import json
import os
import selectors
import socket
import time

PORT = int(os.environ["PORT"])
channel = socket.socket(fileno=int(os.environ["NODE_CHANNEL_FD"]))
deaf = os.environ.get("DEAF") == os.environ["CLUSTERD_SLOT"]
seq = 0


def say(**message):
    global seq
    seq += 1
    line = {"cmd": "NODE_CLUSTER", "seq": seq, **message}
    channel.sendall(json.dumps(line).encode() + b"\n")


def answer(connection):
    """One request, one answer."""
    asked = b""
    while not asked.endswith(b"\r\n\r\n"):
        piece = connection.recv(4096)
        if not piece:
            return connection.close()
        asked += piece
    body = json.dumps({"pid": os.getpid()}).encode()
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
    connection.close()


def take_fd(fds):
    return socket.socket(fileno=fds.pop(0))


def main():
    host = os.environ.get("HOST", "127.0.0.1")
    say(act="online")
    say(act="queryServer", address=host, port=PORT, addressType=4, fd=None, index=0, data=None, flags=0)
    selector = selectors.DefaultSelector()
    selector.register(channel, selectors.EVENT_READ)
    text, fds = b"", []
    while True:
        for key, _ in selector.select(0.05):
            if deaf and os.path.exists("deaf"):
                time.sleep(0.05)
                continue
            if key.fileobj is not channel:
                connection, _ = key.fileobj.accept()
                connection.setblocking(True)
                answer(connection)
                continue
            # One line and one fd at a time, as Node's own reads may join them.
            data, control, _, _ = channel.recvmsg(65536, socket.CMSG_SPACE(4 * 64))
            if not data:
                return
            for _, _, packed in control:
                numbers = array.array("i")
                numbers.frombytes(packed[: len(packed) - len(packed) % 4])
                fds.extend(numbers)
            text += data
            *lines, text = text.split(b"\n")
            for line in lines:
                message = json.loads(line)
                if not isinstance(message, dict):
                    continue
                handle = message.get("cmd") == "NODE_HANDLE"
                inner = message["msg"] if handle else message
                if handle and fds:
                    channel.sendall(b'{"cmd":"NODE_HANDLE_ACK"}\n')
                if inner.get("act") == "newconn":
                    say(ack=inner["seq"], accepted=True)
                    connection = take_fd(fds)
                    connection.setblocking(True)
                    answer(connection)
                elif inner.get("act") == "disconnect":
                    return
                elif "key" in inner and "ack" in inner:
                    if handle:
                        selector.register(take_fd(fds), selectors.EVENT_READ)
                    say(act="listening", address=host, port=PORT, addressType=4, fd=None)


main()
