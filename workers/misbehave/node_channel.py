"""Node's cluster channel as a worker speaks it, without Node: for workers that do with it what Node never would."""
import array
import json
import os
import socket

channel = socket.socket(fileno=os.dup(int(os.environ["NODE_CHANNEL_FD"])))
channel.settimeout(None)
received = b""
fds = []
count = 0


def send(message):
    channel.sendall(json.dumps(message).encode() + b"\n")


def act(name, **words):
    """One line about the cluster; its number."""
    global count
    count += 1
    send({"cmd": "NODE_CLUSTER", "act": name, "seq": count, **words})
    return count


def receive():
    """The next line. File descriptors that come along are in `fds`."""
    global received
    while b"\n" not in received:
        data, control, _, _ = channel.recvmsg(65536, socket.CMSG_SPACE(4 * 64))
        for _, _, body in control:
            fds.extend(array.array("i", body))
        if not data:
            raise SystemExit
        received += data
    line, _, received = received.partition(b"\n")
    return json.loads(line)


def query(address=None, port=0, kind=4):
    """Asks for a listening socket as `listen()` does; the answer."""
    number = act("queryServer", address=address, port=port, addressType=kind, fd=None, index=0, flags=0, data=None)
    while True:
        message = receive()
        answer = message.get("msg", message)
        if answer.get("ack") == number:
            if message.get("cmd") == "NODE_HANDLE":
                send({"cmd": "NODE_HANDLE_ACK"})
            return answer


def become_ready():
    """Listens on PORT."""
    act("online")
    query(port=int(os.environ["PORT"]))
    act("listening", address=None, port=int(os.environ["PORT"]), addressType=4, fd=None)


def connections():
    """Connections that were handed over, each with the function that says that it was taken."""
    while True:
        message = receive()
        if message.get("act") == "disconnect":
            raise SystemExit
        if message.get("cmd") == "NODE_HANDLE":
            number = message["msg"]["seq"]

            def taken(number=number):
                send({"cmd": "NODE_HANDLE_ACK"})
                send({"cmd": "NODE_CLUSTER", "ack": number, "accepted": True, "seq": 1})

            yield socket.socket(fileno=fds.pop(0)), taken
