"""The one place of setup/ that touches processes, the terminal, the clock and the network; tests hand in another."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

GIB = 1024**3
PIECE = 1 << 20


class Refusal(Exception):
    """Setup cannot go on; the message is for a person and holds the remedy."""


@dataclass(frozen=True)
class Result:
    """How a program ended: its exit code (124: out of time, 127: not found) and what it printed."""

    code: int
    out: str = ""
    err: str = ""

    def tail(self, lines: int = 1) -> str:
        """The last lines that say something: of stderr, else of stdout, else the exit code."""
        said = [line.rstrip() for line in (self.err.strip() or self.out.strip()).splitlines() if line.strip()]
        return "\n".join(said[-lines:]) or f"exit code {self.code}"


class Edge:
    """The machine as setup/ sees it. `root` is the checkout, `system` the file system's root; `env` is what every child gets."""

    def __init__(self, *, root: Path, home: Path, env: dict[str, str], system: Path = Path("/")) -> None:
        self.root, self.home, self.env, self.system = root, home, env, system
        # what a plain `pulumi up` needs in the user's own shell, as lines to paste
        self.exports: list[str] = []

    @classmethod
    def real(cls) -> "Edge":
        """This machine, and the checkout that this file is in."""
        env = dict(os.environ)
        # dockerd and iptables live here, and `su` leaves it off root's PATH
        env["PATH"] = os.pathsep.join([env.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
        return cls(root=Path(__file__).resolve().parent.parent, home=Path.home(), env=env)

    def export(self, name: str, value: str, line: str = "") -> None:
        """Sets `name` for every child, and notes the shell line that does the same for a plain `pulumi up`."""
        self.env[name] = value
        self.exports.append(line or f"export {name}={value}")

    def flag(self, name: str) -> bool:
        """Whether an on/off setting such as YES=1 is on."""
        return self.env.get(name, "").strip().lower() in ("1", "y", "yes", "true", "on")

    def which(self, program: str) -> str | None:
        """Path of a program on the children's PATH."""
        return shutil.which(program, path=self.env.get("PATH"))

    def run(self, argv: Sequence[str], timeout: float, stdin: str = "") -> Result:
        """Runs a program to its end without a terminal, fed `stdin`, output captured; `timeout` in seconds ends it and its children."""
        try:
            # a session of its own, so that a timeout ends what the program started too
            process = subprocess.Popen(
                argv,
                cwd=self.root,
                env=self.env,
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
        except OSError as failure:
            return Result(127, err=f"{argv[0]}: {failure.strerror}")
        try:
            out, err = process.communicate(stdin or None, timeout=timeout)
        except subprocess.TimeoutExpired:
            _end_group(process)
            return Result(124, err=f"no end within {timeout:g} s")
        except BaseException:
            _end_group(process)
            raise
        return Result(process.returncode, out, err)

    def stream(self, argv: Sequence[str], timeout: float, *, feed: Iterable[bytes] = (), take: Callable[[bytes], object] | None = None) -> Result:
        """Runs a program to its end, its standard input fed piece by piece, its output handed to `take` piece by piece (else captured as run does).

        It never holds more than a piece of either. Where the program stops reading, the rest is not fed; `timeout` in seconds ends it.
        """
        with tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as out:
            try:
                process = subprocess.Popen(
                    argv,
                    cwd=self.root,
                    env=self.env,
                    stdin=subprocess.DEVNULL if take else subprocess.PIPE,
                    stdout=subprocess.PIPE if take else out,
                    stderr=err,
                    start_new_session=True,
                )
            except OSError as failure:
                return Result(127, err=f"{argv[0]}: {failure.strerror}")
            late = threading.Event()

            def end() -> None:
                late.set()
                os.killpg(process.pid, signal.SIGKILL)

            clock = threading.Timer(timeout, end)
            clock.start()
            try:
                if process.stdout and take:
                    while piece := process.stdout.read(PIECE):
                        take(piece)
                # Where it stops reading, its exit code says why.
                if process.stdin:
                    with suppress(BrokenPipeError):
                        for piece in feed:
                            process.stdin.write(piece)
                    with suppress(BrokenPipeError):
                        process.stdin.close()
                code = process.wait()
            finally:
                clock.cancel()
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                if process.stdout:
                    process.stdout.close()
            if late.is_set():
                return Result(124, err=f"no end within {timeout:g} s")
            for handle in (out, err):
                handle.seek(0)
            return Result(code, out.read().decode(errors="replace"), err.read().decode(errors="replace"))

    def show(self, argv: Sequence[str], timeout: float) -> int:
        """Runs a program on the user's terminal and returns its exit code; 124 when `timeout` (seconds) ended it."""
        with subprocess.Popen(argv, cwd=self.root, env=self.env) as process:
            deadline = time.monotonic() + timeout
            while True:
                try:
                    code = process.wait(max(0.0, deadline - time.monotonic()))
                    return code if code >= 0 else 128 - code
                except KeyboardInterrupt:
                    continue  # the terminal told the child too; pulumi needs the time to save its state
                except subprocess.TimeoutExpired:
                    process.terminate()
                    try:
                        process.wait(60)
                    except subprocess.TimeoutExpired:
                        process.kill()
                    return 124

    def spawn(self, argv: Sequence[str], log: Path) -> int:
        """Starts a program that outlives this one, its output appended to `log`; returns its process id."""
        with log.open("ab") as out:
            return subprocess.Popen(
                argv, cwd="/", env=self.env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            ).pid

    def end(self, pid: int) -> None:
        """Asks a process to end."""
        os.kill(pid, signal.SIGTERM)

    def fetch(self, url: str, target: Path, timeout: float) -> None:
        """Downloads `url` into `target`; `timeout` is seconds without a byte. Raises OSError."""
        try:
            with urllib.request.urlopen(url, timeout=timeout) as answer, target.open("wb") as out:
                shutil.copyfileobj(answer, out)
        except urllib.error.HTTPError as refused:
            refused.close()
            raise

    def free_gib(self, path: str) -> float | None:
        """Free space of the file system under `path` in GiB; None where the path is not on this machine."""
        try:
            return shutil.disk_usage(path).free / GIB
        except OSError:
            return None

    @property
    def uid(self) -> int:
        return os.getuid()

    @property
    def python(self) -> str:
        return sys.executable

    def terminal(self) -> bool:
        """Whether a person can be asked."""
        return sys.stdin is not None and sys.stdin.isatty()

    def read(self, prompt: str) -> str:
        """One line from the user; empty at the end of input."""
        try:
            return input(prompt)
        except EOFError:
            return ""

    def say(self, text: str = "") -> None:
        print(text, flush=True)

    def complain(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def now(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def _end_group(process: "subprocess.Popen[str]") -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.communicate()


def consent(edge: Edge, question: str, *, ci_agrees: bool = False) -> bool:
    """Asks y/N; YES=1 agrees without asking, and so does CI=true where `ci_agrees`. Nobody to ask means no."""
    for name in ("YES", "CI") if ci_agrees else ("YES",):
        if edge.flag(name):
            edge.say(f"{question} yes ({name}={edge.env[name]})")
            return True
    if not edge.terminal():
        edge.say(f"{question} no (no terminal to ask on; YES=1 agrees)")
        return False
    return edge.read(f"{question} [y/N] ").strip().lower() in ("y", "yes")
