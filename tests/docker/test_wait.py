"""The wait for a healthy container gives up as soon as there is nothing to wait for. Deadlines are an hour away: who sits one out fails here."""

import subprocess
from typing import Any

import pytest

from components import _containers

FAR_AWAY_SECONDS = 3600
PATIENCE_SECONDS = 90
NEVER_HEALTHY = {"test": ["CMD", "false"], "interval": 10**9, "start_period": FAR_AWAY_SECONDS * 10**9}


def waited(container: str, seconds: int = FAR_AWAY_SECONDS) -> "subprocess.CompletedProcess[str]":
    script = _containers.wait_script(container, seconds=seconds)
    return subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)


def start(place: Any, command: str, **options: Any) -> str:
    name = f"{place.token}-waited-for"
    place.client.containers.run(place.base, ["/bin/sh", "-c", command], name=name, labels=place.labels, detach=True, **options)
    return name


def test_a_container_that_stops_at_once_ends_the_wait_with_its_last_log_lines(place: Any) -> None:
    name = start(place, "exec >&2; for i in $(seq 100); do echo line $i; done; echo no space left on device; exit 3", healthcheck=NEVER_HEALTHY)
    done = waited(name)
    lines = done.stderr.splitlines()
    assert done.returncode == 1
    assert lines[0] == f"--- last log lines of {name}:"
    assert lines[1:-1] == [*(f"line {i}" for i in range(62, 101)), "no space left on device"]
    assert lines[-1] == f"{name}: stopped before it was healthy; the log above says why, pulumi up tries again"


def test_a_container_that_keeps_restarting_ends_the_wait(place: Any) -> None:
    name = start(place, "echo cannot read the model >&2; exit 1", restart_policy={"Name": "always"}, healthcheck=NEVER_HEALTHY)
    done = waited(name)
    assert done.returncode == 1
    assert "cannot read the model" in done.stderr
    assert f"{name}: keeps stopping (restarted " in done.stderr.splitlines()[-1]


def test_a_container_that_is_not_there_ends_the_wait(place: Any) -> None:
    done = waited(f"{place.token}-nobody")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"{place.token}-nobody: is gone: something removed it while it started; run pulumi up again"


def test_a_container_that_never_gets_healthy_ends_the_wait_at_the_deadline(place: Any) -> None:
    name = start(place, "echo still loading; sleep 3600", init=True, healthcheck=NEVER_HEALTHY)
    done = waited(name, seconds=3)
    assert done.returncode == 1
    assert "still loading" in done.stderr
    assert done.stderr.splitlines()[-1] == (
        f"{name}: not healthy within 3 s (last: running, starting); raise healthTimeoutSeconds if the log above shows it still loading"
    )


@pytest.mark.parametrize("policy", ["no", "unless-stopped"])
def test_a_healthy_container_ends_the_wait_in_peace(place: Any, policy: str) -> None:
    name = start(place, "sleep 3600", init=True, restart_policy={"Name": policy}, healthcheck={"test": ["CMD", "true"], "interval": 10**9})
    done = waited(name)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
