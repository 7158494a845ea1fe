"""The docker program: the one place that runs it. Standard library only, so that whatever runs before there is an environment can use it too."""

import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

TIMEOUT_SECONDS = 60
Run = Callable[..., "subprocess.CompletedProcess[str]"]


class DockerError(Exception):
    """A docker command failed; the text is the last line of what it said."""


class NoDocker(DockerError):
    """There is no docker program."""


def environment(docker_host: str) -> dict[str, str]:
    """Environment under which the docker program talks to the stack's daemon; empty for this machine's own."""
    return {"DOCKER_HOST": docker_host} if docker_host else {}


@dataclass(frozen=True)
class Docker:
    """The docker program, one bounded call at a time. `surroundings` are set for it beside this process's environment; `run` is for tests."""

    surroundings: Mapping[str, str] = field(default_factory=dict)
    timeout: float = TIMEOUT_SECONDS
    run: Run | None = None

    def __call__(self, *argv: str, stdin: str | None = None, partial: bool = False) -> str:
        """Its standard output. DockerError where it fails, or does not end in time; `partial`: not where it failed but answered."""
        run = self.run or subprocess.run
        given = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
        try:
            done = run(
                ["docker", *argv],
                capture_output=True,
                text=True,
                timeout=self.timeout,
                check=False,
                env={**os.environ, **self.surroundings},
                **given,
            )
        except FileNotFoundError:
            raise NoDocker("docker: not on PATH; install Docker's client (Debian, Ubuntu: apt-get install docker.io)") from None
        except subprocess.TimeoutExpired:
            raise DockerError(f"no answer to 'docker {argv[0]}' in {self.timeout:g} s") from None
        if done.returncode and not (partial and done.stdout.strip()):
            raise DockerError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}")
        return done.stdout
