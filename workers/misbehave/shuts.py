"""Takes its listening socket the systemd way and ends the listening of everybody who shares it when it gets SIGUSR2:
twice, because the second time marks the socket. Serves all the time."""
import contextlib
import signal
import socket
import time

listener = socket.socket(fileno=3)
listener.setblocking(True)


def shut(*_):
    for _ in range(2):
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


signal.signal(signal.SIGUSR2, shut)
while True:
    try:
        connection, _ = listener.accept()
    except OSError:
        time.sleep(0.01)
        continue
    # A client may leave without waiting for its answer.
    with connection, contextlib.suppress(OSError):
        head = b""
        while b"\r\n\r\n" not in head and (piece := connection.recv(1000)):
            head += piece
        # Who only asks whether somebody accepts sends nothing and has gone.
        with contextlib.suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
