"""Run a program in a network that has loopback and nothing else, but for ports that lead through a socket file.

Run as a file in an isolated interpreter, in a network namespace of its own:
`bridge.py PORT SOCKET [PORT SOCKET …] -- PROGRAM ARGUMENTS…`. Whatever the program asks for, it reaches these ports only.
Plain threads and the standard library: starting it costs milliseconds.
"""

import fcntl
import signal
import socket
import struct
import subprocess
import sys
import threading

SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1  # linux/sockios.h, linux/if.h


def main() -> int:
    """The program's exit code."""
    at = sys.argv.index("--")
    ports, command = sys.argv[1:at], sys.argv[at + 1 :]
    _loopback_up()
    for port, path in zip(ports[::2], ports[1::2], strict=True):
        server = socket.create_server(("127.0.0.1", int(port)), backlog=128)
        threading.Thread(target=_serve, args=(server, path), daemon=True).start()
    signal.signal(signal.SIGINT, lambda *_: None)  # for the program alone; a handler, since SIG_IGN would be inherited
    return subprocess.call(command)  # the client under test


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        name = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(control, SIOCGIFFLAGS, name))[1]
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


def _serve(server: socket.socket, path: str) -> None:
    while True:
        near, _ = server.accept()
        threading.Thread(target=_join, args=(near, path), daemon=True).start()


def _join(near: socket.socket, path: str) -> None:
    far = socket.socket(socket.AF_UNIX)
    try:
        far.connect(path)
    except OSError:
        near.close()
        return
    back = threading.Thread(target=_copy, args=(far, near), daemon=True)
    back.start()
    _copy(near, far)
    back.join()
    near.close()
    far.close()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65_536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:  # one side is gone: the other shall know
        for each in (source, sink):
            _end(each)


def _end(each: socket.socket) -> None:
    try:
        each.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


if __name__ == "__main__":
    sys.exit(main())
