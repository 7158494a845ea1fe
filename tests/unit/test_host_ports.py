"""host/ports.py: who has a port, on this machine and on one that is reached over ssh."""

import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from host import ports
from host.ports import Listener

TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1FBB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1024251 1 0 100 0 0 10 0
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1137 1 0 100 0 0 10 0
   2: 0100007F:9C40 0100007F:1FBB 01 00000000:00000000 00:00000000 00000000     0        0 5 1 0 20 4 30 10 -1
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  2000        0 77 1 0 100 0
   1: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  2000        0 78 1 0 100 0
"""
ROUTES = """\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 192.168.1.0/24 2 0 2
        |-- 192.168.1.0
           /24 link UNICAST
        |-- 192.168.1.9
           /32 host LOCAL
     |-- 127.0.0.1
        /32 host LOCAL
fd000000000000000000000000000002 02 40 00 80     eth0
00000000000000000000000000000001 01 80 10 80       lo
"""
NAMES = 'LISTEN 0 511 127.0.0.1:8123 0.0.0.0:* users:(("nginx",pid=812,fd=6),("nginx",pid=811,fd=6))\nLISTEN 0 128 0.0.0.0:22 0.0.0.0:*\n'
TABLES = f"{TCP}\n{ROUTES}\n{NAMES}"


def test_the_kernels_tables_are_read() -> None:
    found = ports.parse(TABLES)
    assert found.listeners == (
        Listener(address="127.0.0.1", port=8123, inode="1024251", process="nginx (process 812)"),
        Listener(address="0.0.0.0", port=22, inode="1137"),
        Listener(address="::", port=8080, inode="77"),
        Listener(address="::1", port=80, inode="78"),
    )
    assert found.addresses == {"192.168.1.9", "127.0.0.1", "fd00::2", "::1"}


@pytest.mark.parametrize(
    ("wanted", "held", "both"),
    [
        ("127.0.0.1", "127.0.0.1", False), ("127.0.0.1", "0.0.0.0", False), ("0.0.0.0", "192.168.1.9", False), ("127.0.0.1", "::", False),
        ("127.0.0.1", "", False), ("127.0.0.1", "192.168.1.9", True), ("127.0.0.1", "::1", True), ("::1", "0.0.0.0", True), ("::1", "::", False),
    ],
)  # fmt: skip
def test_one_port_is_had_by_two_only_on_addresses_of_their_own(wanted: str, held: str, both: bool) -> None:
    assert ports.overlap(wanted, held) is not both


OVER_SSH: list[tuple[str, int, str, str]] = [
    ("127.0.0.1", 8123, TABLES, "taken by nginx (process 812)"),
    ("0.0.0.0", 8123, TABLES, "taken by nginx (process 812)"),
    ("127.0.0.1", 22, TABLES, "taken"),
    ("127.0.0.1", 8124, TABLES, ""),
    ("10.1.2.3", 8124, TABLES, "absent"),
    ("192.168.1.9", 8124, TABLES, ""),
    ("fd00::3", 8124, TABLES, "absent"),
    ("::1", 8124, TABLES, ""),
    ("10.1.2.3", 8124, "", ""),
    ("127.0.0.1", 8123, "This account is not available.\n", ""),
]


@pytest.mark.parametrize(("address", "port", "printed", "seen"), OVER_SSH)
def test_a_host_over_ssh_is_asked_once_without_a_question(address: str, port: int, printed: str, seen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def run(argv: list[str], **options: Any) -> "subprocess.CompletedProcess[str]":
        asked.append(argv)
        assert options["timeout"] == ports.SECONDS
        assert options["stdin"] == subprocess.DEVNULL
        return subprocess.CompletedProcess(argv, 0, printed, "")

    monkeypatch.setattr(subprocess, "run", run)
    assert ports.seen("ssh://me@nas:2222", same=False, address=address, port=port) == seen
    assert asked == [["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "--", "ssh://me@nas:2222", ports.REMOTE]]


def test_an_ssh_that_hangs_or_is_not_there_is_no_reason_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (subprocess.TimeoutExpired(["ssh"], 15), FileNotFoundError("ssh")):

        def run(*_: Any, error: Exception = error, **__: Any) -> None:
            raise error

        monkeypatch.setattr(subprocess, "run", run)
        assert ports.seen("ssh://nas", same=False, address="127.0.0.1", port=8123) == ""


def test_a_port_of_this_machine_is_taken_by_a_process_with_a_name() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        seen = ports.seen("unix:///var/run/docker.sock", same=True, address="127.0.0.1", port=port)
        assert seen.startswith("taken by ")
        assert seen.endswith(f"(process {os.getpid()})")
        assert ports.seen("unix:///var/run/docker.sock", same=True, address="0.0.0.0", port=port) == seen
        assert ports.seen("tcp://elsewhere:2375", same=False, address="127.0.0.1", port=port) == ""
    assert ports.seen("unix:///var/run/docker.sock", same=True, address="127.0.0.1", port=port) == ""


def test_an_address_that_this_machine_has_not_is_said_so() -> None:
    assert ports.here("192.0.2.77", 8123) == "absent"


def test_a_holder_that_this_user_may_not_see_is_still_in_the_way(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        assert ports.here("127.0.0.1", held.getsockname()[1], root=tmp_path) == "taken"
