"""An sshd on this machine's loopback, and an ssh that knows its keys: a home server, as far as ssh goes."""

import getpass
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.engine import free_port, wait_until

PROGRAM = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin")


@dataclass(frozen=True)
class Server:
    """`address` as dockerHost takes it; `programs` a folder for PATH whose ssh knows the keys, as ssh reads ~/.ssh of the account, whatever HOME says."""

    address: str
    programs: Path
    log: Path

    @property
    def entered(self) -> bool:
        return "Accepted publickey" in self.log.read_text()


@contextmanager
def serving(folder: Path, *, inside: Sequence[str] = ()) -> Iterator[Server]:
    """Serves until the block ends, its files in `folder`. `inside`: argv that runs what follows it in other namespaces."""
    assert PROGRAM
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True, timeout=60)
    port = free_port()
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\nStrictModes no\n"
        f"UsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nPidFile {folder}/pid\n"
    )
    public = " ".join((folder / "host.pub").read_text().split()[:2])
    (folder / "known").write_text(f"[127.0.0.1]:{port} {public}\n")
    (folder / "ssh_config").write_text(f"IdentityFile {folder}/user\nIdentitiesOnly yes\nUserKnownHostsFile {folder}/known\nBatchMode yes\n")
    programs = folder / "bin"
    programs.mkdir()
    (programs / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/ssh_config "$@"\n')
    (programs / "ssh").chmod(0o755)
    if os.geteuid() == 0:
        subprocess.run([*inside, "mkdir", "-p", "/run/sshd"], check=True, timeout=60)
    daemon = subprocess.Popen([*inside, PROGRAM, "-D", "-E", folder / "log", "-f", folder / "sshd_config"])
    try:
        address = f"{getpass.getuser()}@127.0.0.1"
        asked = [*inside, str(programs / "ssh"), "-p", str(port), address, "true"]
        wait_until(lambda: subprocess.run(asked, check=False, timeout=30, capture_output=True).returncode == 0, seconds=30)
        yield Server(f"ssh://{address}:{port}", programs, folder / "log")
    finally:
        daemon.terminate()
        daemon.wait(timeout=30)
