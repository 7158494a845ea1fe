"""Who has a port of the Docker host, before the daemon is asked for it: a container by name, else a process, read off the host's own tables. Reads only."""

import errno
import ipaddress
import os
import re
import socket
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

SECONDS = 15
# What an ssh host is asked in one go: who listens, and which addresses are its own. `ss` names processes, where it is there and the user may see them.
REMOTE = "cat /proc/net/tcp /proc/net/tcp6; echo; cat /proc/net/fib_trie /proc/net/if_inet6; echo; ss -Hltnp"
Run = Callable[..., "subprocess.CompletedProcess[str]"]
LISTENING = "0A"


@dataclass(frozen=True, kw_only=True)
class Listener:
    """A socket that listens: its address and port, its inode, and the process it belongs to, 'nginx (process 812)', where that could be seen."""

    address: str
    port: int
    inode: str = ""
    process: str = ""


@dataclass(frozen=True, kw_only=True)
class Tables:
    """What a host showed: who listens, and the addresses that are its own (empty: not seen)."""

    listeners: tuple[Listener, ...] = ()
    addresses: frozenset[str] = frozenset()


def taken_by(address: str, port: int, listeners: Iterable[Listener]) -> Listener | None:
    """The one in the way of publishing `port` on `address`."""
    return next((one for one in listeners if one.port == port and overlap(address, one.address)), None)


def overlap(wanted: str, held: str) -> bool:
    """Whether one port cannot be had on both addresses. '::' listens to IPv4 too, as Linux has it by default; '' is every address, as Docker has it."""
    if wanted == held or "" in (wanted, held):
        return True
    one, other = ipaddress.ip_address(wanted), ipaddress.ip_address(held)
    if not (one.is_unspecified or other.is_unspecified):
        return one == other
    either = one if one.is_unspecified else other
    return one.version == other.version or either.version == 6


def absent(address: str, addresses: frozenset[str]) -> bool:
    """Whether the host, by its own list, does not have this address; False where it gave none."""
    given = ipaddress.ip_address(address)
    mine = {ipaddress.ip_address(item) for item in addresses}
    return not (given.is_unspecified or given.is_loopback) and any(item.version == given.version for item in mine) and given not in mine


def parse(text: str) -> Tables:
    """What REMOTE printed."""
    sockets, _, rest = text.partition("\n\n")
    routes, _, names = rest.partition("\n\n")
    processes = {}
    for line in names.splitlines():
        found = re.match(r"LISTEN\s+\d+\s+\d+\s+\S+:(\d+)\s.*users:\(\(\"([^\"]+)\",pid=(\d+)", line)
        if found:
            processes[int(found[1])] = f"{found[2]} (process {found[3]})"
    return Tables(
        listeners=tuple(
            Listener(address=one.address, port=one.port, inode=one.inode, process=processes.get(one.port, "")) for one in sockets_of(sockets)
        ),
        addresses=addresses_of(routes),
    )


def sockets_of(text: str) -> Iterable[Listener]:
    """The listening sockets in /proc/net/tcp and tcp6."""
    for line in text.splitlines():
        words = line.split()
        if len(words) > 9 and words[3] == LISTENING:
            address, _, port = words[1].partition(":")
            yield Listener(address=_address(address), port=int(port, 16), inode=words[9])


def addresses_of(text: str) -> frozenset[str]:
    """The host's own addresses in /proc/net/fib_trie and if_inet6."""
    found, last = set(), ""
    for line in text.splitlines():
        if leaf := re.search(r"\|-- ([0-9.]+)$", line):
            last = leaf[1]
        elif "/32 host LOCAL" in line:
            found.add(last)
        elif six := re.match(r"([0-9a-f]{32}) ", line):
            found.add(str(ipaddress.IPv6Address(int(six[1], 16))))
    return frozenset(found)


def _address(written: str) -> str:
    """The kernel writes an address as words in the order of this machine's bytes: little-endian on all that Docker runs on here."""
    words = [bytes.fromhex(written[at : at + 8])[::-1] for at in range(0, len(written), 8)]
    return str(ipaddress.ip_address(b"".join(words)))


def over_ssh(docker_host: str, *, run: Run | None = None) -> Tables:
    """The tables of a host that Docker is reached on by ssh; empty where it shows none (no Linux, no shell)."""
    target = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "--", docker_host, REMOTE]
    try:
        done = (run or subprocess.run)(target, capture_output=True, text=True, timeout=SECONDS, check=False, stdin=subprocess.DEVNULL)
        return parse(done.stdout)
    except (OSError, ValueError, IndexError, subprocess.TimeoutExpired):
        return Tables()


def here(address: str, port: int, *, root: Path = Path("/")) -> str:
    """Why this machine does not give the port on that address: 'absent', 'taken', 'taken by nginx (process 812)', or '' where it does, or cannot say."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            trial.bind((address, port))
            trial.listen(1)
        return ""
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            return "absent"
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            return ""
        refused = error.errno
    try:
        tables = "\n".join((root / "proc/net" / name).read_text() for name in ("tcp", "tcp6") if (root / "proc/net" / name).exists())
        held = taken_by(address, port, sockets_of(tables))
    except (OSError, ValueError):
        held = None
    if held is None:
        return "taken" if refused == errno.EADDRINUSE else ""
    process = process_of(held.inode, root)
    return f"taken by {process}" if process else "taken"


def process_of(inode: str, root: Path = Path("/")) -> str:
    """Name and id of the process that holds a socket; '' where this user may not see it."""
    for home in (root / "proc").glob("[0-9]*"):
        try:
            if any(os.readlink(fd) == f"socket:[{inode}]" for fd in (home / "fd").iterdir()):
                return f"{(home / 'comm').read_text().strip()} (process {home.name})"
        except OSError:
            continue
    return ""


def seen(endpoint: str, *, same: bool, address: str, port: int) -> str:
    """What stands in the way of publishing `port` on `address` besides containers: as `here` says it, for the host at `endpoint`; '' for nothing, or where that
    cannot be seen. `same`: the daemon publishes on this machine.
    """
    if endpoint.startswith("ssh://"):
        tables = over_ssh(endpoint)
        if absent(address, tables.addresses):
            return "absent"
        held = taken_by(address, port, tables.listeners)
        return "" if held is None else f"taken by {held.process}" if held.process else "taken"
    return here(address, port) if same else ""
