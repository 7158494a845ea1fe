"""`rerank status`, `logs` and `wait`: what Docker or /health says of a deployed reranker, and how the target is named."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from typer.testing import CliRunner

from host.docker import DockerError, NoDocker
from rerank import deployed
from rerank.command import app
from rerank.deployed import State, Target, look, of_outputs, of_stack, of_url

CONTAINER = Target(container="reranker", docker_host="ssh://me@nas")
WHERE = "container reranker on ssh://me@nas"
OUTPUTS = {"internalUrl": "http://reranker:8000/v1", "containerName": "reranker", "dockerHost": "ssh://me@nas", "modelName": "m"}
run = CliRunner()


def docker(state: dict[str, Any], **answers: str) -> Callable[..., str]:
    """A docker program whose container is in `state`; what it has no answer to fails."""

    def call(*argv: str, **_: Any) -> str:
        if argv[0] == "inspect":
            return json.dumps([{"RestartCount": 3, "State": {"StartedAt": "then", **state}}])
        if argv[0] not in answers:
            raise DockerError("it failed")
        return answers[argv[0]]

    return call


def running(health: str) -> dict[str, Any]:
    return {"Status": "running", "Health": {"Status": health}}


@pytest.mark.parametrize(
    ("state", "answers", "wanted", "reason"),
    [
        (running("healthy"), {}, "healthy", ""),
        (
            running("unhealthy"),
            {"exec": json.dumps({"status": "unhealthy", "reason": "The golden pair scored 0.1."})},
            "unhealthy",
            "The golden pair scored 0.1.",
        ),
        (
            running("starting"),
            {"exec": json.dumps({"status": "starting", "reason": "The golden set is being scored."})},
            "starting",
            "The golden set is being scored.",
        ),
        (running("starting"), {"exec": "healthy\n"}, "healthy", ""),
        (
            running("starting"),
            {"exec": "http://127.0.0.1:8000/health cannot be reached"},
            "starting",
            "http://127.0.0.1:8000/health cannot be reached",
        ),
        (running("unhealthy"), {}, "unhealthy", "its health check does not run"),
        ({"Status": "exited", "ExitCode": 137, "OOMKilled": True}, {}, "stopped", "raise memoryGiB"),
        (
            {"Status": "restarting", "ExitCode": 1},
            {"logs": "x\nThe model file is missing.\n\n"},
            "stopped",
            "exit status 1; its log ends: The model file is missing.",
        ),
        ({"Status": "exited", "ExitCode": 0}, {}, "stopped", "'rerank logs' has more"),
    ],
)
def test_a_container_is_told_as_docker_and_its_own_health_tell_it(state: dict[str, Any], answers: dict[str, str], wanted: str, reason: str) -> None:
    found = look(CONTAINER, docker=docker(state, **answers))
    assert (found.state, found.where, found.restarts, found.started) == (wanted, WHERE, 3, "then")
    assert reason in found.reason if reason else not found.reason


@pytest.mark.parametrize(
    ("error", "wanted", "reason"),
    [
        (DockerError("Error: No such container: reranker"), deployed.GONE, "make up"),
        (DockerError("error during connect: ssh: connection refused"), deployed.UNREACHED, "connection refused: is Docker running there"),
        (NoDocker("docker: not on PATH; install Docker's client"), deployed.UNREACHED, "install Docker's client"),
        (DockerError("no answer to 'docker inspect' in 60 s"), deployed.UNREACHED, "in 60 s"),
    ],
)
def test_a_docker_host_that_does_not_answer_is_not_a_reranker_that_is_ill(error: DockerError, wanted: str, reason: str) -> None:
    def fails(*_: str, **__: Any) -> str:
        raise error

    found = look(CONTAINER, docker=fails)
    assert found.state == wanted
    assert reason in found.reason


@pytest.mark.parametrize(
    ("status", "body", "wanted", "code"),
    [
        (200, '{"status": "healthy"}', State(state="healthy"), 0),
        (503, '{"status": "starting", "reason": "soon"}', State(state="starting", reason="soon"), 1),
        (503, '{"status": "unhealthy", "reason": "no"}', State(state="unhealthy", reason="no"), 1),
        (502, "<html>", State(state="unhealthy", reason="GET /health answered 502: is that the reranker's own address?"), 1),
        (503, "[]", State(state="unhealthy", reason="GET /health answered 503: is that the reranker's own address?"), 1),
    ],
)
def test_a_url_is_asked_for_its_health(status: int, body: str, wanted: State, code: int) -> None:
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health" else 404)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        shown = run.invoke(app, ["status", f"{url}/v1", "--json"])
        waited = run.invoke(app, ["wait", url, "--timeout", "0"])
        server.shutdown()
    assert shown.exit_code == waited.exit_code == code
    assert json.loads(shown.stdout) == {"state": wanted.state, "reason": wanted.reason, "where": url, "restarts": 0, "started": ""}
    assert wanted.reason in waited.stderr


def test_outputs_name_the_container_and_its_docker_host_and_without_one_the_url() -> None:
    assert of_outputs(json.dumps(OUTPUTS), "x") == Target(container="reranker", docker_host="ssh://me@nas", model="m")
    external = {**OUTPUTS, "containerName": "", "dockerHost": "", "internalUrl": "http://box:8000/v1"}
    assert of_outputs(json.dumps(external), "x") == Target(url="http://box:8000", model="m")
    assert of_url("https://box/v1/") == Target(url="https://box")
    for wrong in ("", "{", "[]", '"x"'):
        with pytest.raises(deployed.NoTarget, match="is not what 'pulumi stack output --json' prints"):
            of_outputs(wrong, "x")
    with pytest.raises(deployed.NotUp, match="make up"):
        of_outputs("{}", "x")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "stacks").mkdir()
    (tmp_path / "stacks/Pulumi.nas.yaml").write_text("")
    (tmp_path / "Pulumi.yaml").write_text("")
    return tmp_path


def a_program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def test_a_stack_is_asked_of_pulumi_with_the_passphrase_that_make_keeps(checkout: Path, tmp_path: Path) -> None:
    kept = tmp_path / "config/ragflow-reranker/passphrase"
    kept.parent.mkdir(parents=True)
    kept.write_text("x")
    a_program(tmp_path / "bin", "pulumi", f"echo \"$* $PWD $PULUMI_CONFIG_PASSPHRASE_FILE\" > {tmp_path}/asked; echo '{json.dumps(OUTPUTS)}'")
    told = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "XDG_CONFIG_HOME": str(tmp_path / "config")}
    assert of_stack("nas", checkout, told).container == "reranker"
    assert (tmp_path / "asked").read_text().split() == [
        *["stack", "output", "--json", "--stack", "nas", "--non-interactive"],
        str(checkout),
        str(kept),
    ]
    with pytest.raises(deployed.NoTarget, match="choose one of nas"):
        of_stack("other", checkout, told)
    a_program(tmp_path / "bin", "pulumi", "echo 'error: no stack named nas found' >&2; exit 1")
    with pytest.raises(deployed.NoTarget, match="error: no stack named nas found"):
        of_stack("nas", checkout, told)


def test_without_a_checkout_or_pulumi_the_other_ways_are_named(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    with pytest.raises(deployed.NoTarget, match="pipe in 'pulumi stack output --json', or give a URL"):
        of_stack("nas", None, {})
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(deployed.NoTarget, match="pulumi is not on PATH"):
        of_stack("nas", checkout, {"PATH": str(tmp_path)})


def test_the_log_is_dockers_on_the_stacks_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_program(tmp_path, "docker", f'echo "$* $DOCKER_HOST" >> {tmp_path}/asked')
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    file = tmp_path / "outputs.json"
    file.write_text(json.dumps(OUTPUTS))
    assert run.invoke(app, ["logs", str(file), "-n", "7"]).exit_code == 0
    assert run.invoke(app, ["logs", "-f", "-"], input=json.dumps(OUTPUTS)).exit_code == 0
    assert (tmp_path / "asked").read_text().splitlines() == ["logs --tail 7 reranker ssh://me@nas", "logs --tail 100 --follow reranker ssh://me@nas"]
    a_program(tmp_path, "docker", "exit 1")
    assert run.invoke(app, ["logs", str(file)]).exit_code == 1


def test_ctrl_c_while_it_waits_ends_with_130_and_no_trace(tmp_path: Path) -> None:
    code = "import os, signal, threading, sys; threading.Timer(2, os.kill, (os.getpid(), signal.SIGINT)).start(); sys.argv = ['rerank', 'wait', 'http://127.0.0.1:9']; "
    done = subprocess.run(
        [sys.executable, "-c", code + "from rerank.command import main; main()"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 130
    assert "Traceback" not in done.stderr
