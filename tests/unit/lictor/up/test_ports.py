"""Ports for programs to come: never the kernel's to give, never the same twice, in this process or in another."""

import socket
import subprocess
import sys

from lictor.up.ports import BLOCK, BLOCKS, FIRST, free_ports

ASK = "from lictor.up.ports import free_ports; print(*free_ports({})); input()"


def test_ports_differ_and_are_not_among_those_that_linux_gives() -> None:
    ports = free_ports(BLOCK + 1)
    assert len(set(ports)) == BLOCK + 1
    assert set(ports).isdisjoint(free_ports(3))
    assert all(FIRST <= port < FIRST + BLOCK * BLOCKS < 32_768 for port in ports)


def test_a_port_wanted_or_taken_is_passed_over() -> None:
    (last,) = free_ports(1)
    with socket.socket() as taken:
        following = last + 1
        taken.bind(("127.0.0.1", following))
        (port,) = free_ports(1, {last + 2})
    assert port not in {following, last + 2}


def test_processes_at_once_share_no_port() -> None:
    asking = [
        subprocess.Popen(
            [sys.executable, "-c", ASK.format(BLOCK)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    given: list[str] = []
    for process in asking:
        assert process.stdout is not None
        given += process.stdout.readline().split()
    for process in asking:
        process.communicate("\n")
    assert len(given) == len(set(given)) == 4 * BLOCK
