"""Leaves sockets to clusterd whose close waits for an hour, by the way that WAY names:

notify: in datagrams to NOTIFY_SOCKET; channel: on its channel; unread: on its channel, behind a line for which the rest
is not read; connection: the connection that it was handed. Waits with it for a file called `go`, and makes `left`
afterwards."""
import array
import os
import socket
import struct
import time

SOCKETS = 5
keep = []


def fill(sock):
    sock.setblocking(False)
    try:
        while True:
            sock.send(b"x" * 65536)
    except BlockingIOError:
        pass
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))


def lingering():
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    listener.bind(("127.0.0.1", 0))
    listener.listen(1)
    sock = socket.create_connection(listener.getsockname())
    keep.append((listener, listener.accept()[0]))
    fill(sock)
    return sock


def leave(send):
    """A process that ends closes without waiting: so the last copy is the receiver's."""
    sock = lingering()
    go, let_go = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(let_go)
        os.read(go, 1)
        send([(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [sock.fileno()]))])
        os._exit(0)
    sock.close()
    os.close(let_go)
    os.waitpid(child, 0)


def leave_all(send):
    """Once: a worker that comes after this one serves."""
    if os.path.exists("left"):
        return
    while not os.path.exists("go"):
        time.sleep(0.01)
    for _ in range(SOCKETS):
        leave(send)
    hold_peers()
    open("left", "w").close()


def hold_peers():
    """When this worker is killed, another process still does not read what waits."""
    if os.fork() == 0:
        os.setsid()
        os.dup2(os.open("/dev/null", os.O_RDWR), 1)
        os.dup2(1, 2)
        if "NODE_CHANNEL_FD" in os.environ:
            node_channel.channel.close()
            os.close(int(os.environ["NODE_CHANNEL_FD"]))
        until = time.monotonic() + 60
        while os.path.exists("go") and time.monotonic() < until:
            time.sleep(0.1)
        os._exit(0)


way = os.environ["WAY"]
if way == "notify":
    name = os.environ["NOTIFY_SOCKET"]
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.connect("\0" + name[1:] if name.startswith("@") else name)
    notify.send(b"READY=1")
    leave_all(lambda control: notify.sendmsg([b"X=1"], control))
    notify.send(b"STATUS=done")
    while True:
        socket.socket(fileno=os.dup(3)).accept()[0].close()

import node_channel

node_channel.become_ready()
if way in ("channel", "unread"):
    line = b'{"cmd":"NODE_HANDLE","type":"net.Socket"}\n'
    if way == "unread":
        line = b"no JSON\n"
    leave_all(lambda control: node_channel.channel.sendmsg([line], control))
for sock, taken in node_channel.connections():
    if way == "connection":
        fill(sock)
    else:
        sock.recv(1000)
        body = b"pid %d" % os.getpid()
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body))
    sock.close()
    taken()
