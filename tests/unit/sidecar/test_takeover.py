from __future__ import annotations

import socket
import subprocess
import sys

from sidecar.takeover import listening, places, taken_over

TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 501 1 0 100 0 0 10 0
   1: 0100007F:1F90 0100007F:A000 01 00000000:00000000 00:00000000 00000000     0        0 502 1 0 20 4 30 10 -1
   2: short
"""
ANOTHER = """
import socket, sys
sock = socket.socket()
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
sock.bind(("127.0.0.1", int(sys.argv[1])))
sock.listen()
print("listening", flush=True)
sys.stdin.read()
"""


def bound(port: int = 0) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    sock.listen()
    return sock


def test_listening_sockets_are_told_from_connections() -> None:
    assert listening([TABLE, ""]) == {"501": "0100007F:1F90"}


def test_another_process_on_the_same_port_is_found_and_our_own_sockets_are_not() -> None:
    with bound() as sock, bound() as other:
        port = sock.getsockname()[1]
        ours = places([port])
        assert ours == {f"0100007F:{port:04X}"}
        with bound(port):
            assert not taken_over(ours), "both are ours"
        with subprocess.Popen(
            [sys.executable, "-c", ANOTHER, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"listening\n"
            assert taken_over(ours)
            assert not taken_over(places([port, other.getsockname()[1]])), "every port has to be taken"
            sock.close()
            assert taken_over(ours), "also when we have stopped listening"
            child.communicate()
        assert not taken_over(ours)


def test_who_listens_nowhere_is_relieved_by_nobody() -> None:
    assert not taken_over(places([]))
