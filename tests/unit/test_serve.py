"""`rerank serve` with the mock for a server: started, found, stopped; and what must hold before one is."""

import contextlib
import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from rerank import house, models
from rerank.command import app, serve
from rerank.serve import gpus, instance, log, processes, python, start, tail
from rerank.serve.instance import Instance, Record
from rerank.serve.processes import Process
from rerank.serve.python import Python
from rerank.serve.start import Settings
from serving.launch import options as launch
from tests.support.engine import free_port, wait_until
from tests.support.hub import serving
from tests.support.recording import ROOT

SECONDS = 240  # a busy machine imports slowly
KEY = "sk-serve-7c1d-nobody-sees"


class Machine:
    """The command with a state folder and a port of its own; whatever it started is ended."""

    def __init__(self, home: Path) -> None:
        self.home, self.port = home, free_port()
        self.name = f"reranker-{self.port}"

    def __call__(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        told = {**os.environ, "XDG_STATE_HOME": str(self.home / "state"), "XDG_DATA_HOME": str(self.home / "data"), **environment}
        argv = [sys.executable, "-m", "rerank", "serve", *words]
        return subprocess.run(argv, capture_output=True, text=True, timeout=SECONDS, env=told, cwd=ROOT)

    def start(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self("start", "--engine", "mock", "--port", str(self.port), *words, **environment)

    @property
    def instance(self) -> Instance:
        return Instance(self.name, self.home / "state/ragflow-reranker/serve" / self.name)

    @property
    def record(self) -> Record:
        found = self.instance.record()
        assert found is not None
        return found


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    yield made
    for path in (tmp_path / "state/ragflow-reranker/serve").glob("*/server.json"):
        if record := Instance(path.parent.name, path.parent).record():
            instance.end(record, 5)


def settings(**changes: Any) -> Settings:
    return dataclasses.replace(Settings(host="127.0.0.1", port=8123), **changes)


# -- a server's life ------------------------------------------------------------------------------------------------------


def test_a_server_is_started_seen_restarted_and_stopped(machine: Machine) -> None:
    done = machine.start("--json")
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert (row["name"], row["status"], row["url"]) == (machine.name, "healthy", f"http://127.0.0.1:{machine.port}")
    assert "healthy after" in done.stderr
    assert machine("status").returncode == 0
    first = machine.record.process
    again = machine.start()
    assert again.returncode == 1
    assert f"{machine.name} runs already (pid {first.pid}" in again.stderr
    assert machine("restart").returncode == 0
    assert machine.record.process != first
    assert not first.alive
    second = machine.record.process
    stopped = machine("stop", "--json")
    assert json.loads(stopped.stdout) == {"name": machine.name, "status": "stopped", "ran": True, "killed": False}
    assert not second.alive
    assert machine("stop").returncode == 0
    done = machine("status")
    assert (done.returncode, done.stdout) == (1, f"{machine.name}  stopped\n")


def test_a_port_that_is_taken_is_said_with_who_has_it(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", machine.port)):
        done = machine.start()
    assert done.returncode == 1
    assert f"port {machine.port} is taken by" in done.stderr
    assert f"(pid {os.getpid()})" in done.stderr
    assert machine.start().returncode == 0
    second = machine.start("--name", "second")
    assert second.returncode == 1
    assert f"taken by the server {machine.name} " in second.stderr


def test_two_servers_are_told_apart_by_port_and_by_name(machine: Machine) -> None:
    assert machine.start().returncode == 0
    assert machine("start", "--engine", "mock", "--port", str(free_port()), "--name", "other").returncode == 0
    asked = machine("stop")
    assert asked.returncode == 2
    assert f"say which with --name: other, {machine.name}" in asked.stderr
    assert machine("stop", "--name", "other").returncode == 0
    assert machine.record.alive
    assert machine("stop").returncode == 0


def test_a_key_from_the_environment_is_asked_for_and_shows_nowhere(machine: Machine) -> None:
    assert machine.start(RERANK_API_KEY=KEY).returncode == 0
    proc = Path("/proc") / str(machine.record.process.pid)
    assert KEY.encode() not in (proc / "cmdline").read_bytes() + (proc / "environ").read_bytes()
    assert KEY not in (machine.instance.folder / "server.json").read_text()
    assert machine.instance.key_file.stat().st_mode & 0o077 == 0
    assert machine("restart").returncode == 0, "the key is kept for a restart"
    for key, status in (("", 403), (KEY, 200)):
        request = urllib.request.Request(f"{machine.record.url}/v1/models", headers={"Authorization": f"Bearer {key}"} if key else {})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                found = answer.status
        except urllib.error.HTTPError as error:
            found = error.code
        assert found == status
    assert machine("stop").returncode == 0
    assert machine.start().returncode == 0
    assert not machine.instance.key_file.exists(), "a start without a key asks for none"


def test_a_record_of_a_process_that_is_gone_or_was_recycled_stops_nothing(machine: Machine) -> None:
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        assert machine.start().returncode == 0
        assert machine("stop").returncode == 0
        there = processes.find(bystander.pid)
        assert there is not None
        machine.instance.write(dataclasses.replace(machine.record, process=dataclasses.replace(there, started=there.started - 1), stopped=False))
        assert "does not run" in machine("stop").stderr
        assert bystander.poll() is None
        assert machine.start().returncode == 0, "a stale record is no server that runs"
    finally:
        bystander.kill()
        bystander.wait()


def test_a_server_that_was_killed_is_said_to_have_ended_by_itself(machine: Machine) -> None:
    assert machine.start().returncode == 0
    os.kill(machine.record.process.pid, signal.SIGKILL)
    wait_until(lambda: not machine.record.alive, seconds=10, every=0.05)
    done = machine("status", "--json")
    assert done.returncode == 1
    [row] = json.loads(done.stdout)
    assert (row["status"], row["pid"]) == ("ended", 0)
    assert row["reason"].startswith("it ended by itself: ")


def test_a_server_that_ends_while_it_starts_is_reported_with_its_last_words(machine: Machine) -> None:
    bad = machine.home / "keys"
    bad.write_text("a key with blanks\n")
    done = machine.start("--api-key-file", str(bad))
    assert done.returncode == 1
    assert "character that an HTTP header cannot carry" in done.stderr
    assert not (machine.instance.folder / "server.json").exists(), "refused before anything was started"


def test_two_starts_at_once_are_one(machine: Machine) -> None:
    with machine.instance.alone():
        done = machine.start()
    assert done.returncode == 1
    assert "another rerank serve is at work" in done.stderr


def test_the_end_of_a_stubborn_server_takes_its_children_along() -> None:
    code = "import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nos.fork()\nos.write(1, b'up\\n')\ntime.sleep(600)"
    told = {**os.environ, "RERANK_SERVE": "stubborn"}
    server = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=told, start_new_session=True)
    try:
        assert server.stdout is not None
        assert [server.stdout.readline() for _ in range(2)] == ["up\n", "up\n"]
        leader = processes.find(server.pid)
        assert leader is not None
        mark = "RERANK_SERVE=stubborn"
        [child] = processes.belonging(leader, mark)
        assert list(processes.belonging(leader, "RERANK_SERVE=another")) == []
        record = Record(name="x", process=leader, mark=mark, url="", model="", log="", key_file="", settings={})
        assert instance.end(record, 0.3) is False
        assert not leader.alive
        assert (found := processes.find(child)) is None or not found.alive
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.communicate(timeout=10)


def test_run_stays_in_the_foreground_and_ends_with_the_signal(machine: Machine) -> None:
    argv = [sys.executable, "-m", "rerank", "serve", "run", "--engine", "mock", "--port", str(machine.port)]
    told = {**os.environ, "XDG_STATE_HOME": str(machine.home)}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=told, cwd=ROOT) as server:
        assert server.stdout is not None
        assert json.loads(server.stdout.readline())["listening"] == f"127.0.0.1:{machine.port}"
        server.send_signal(signal.SIGINT)
        assert server.wait(20) == 0


# -- what must hold before ------------------------------------------------------------------------------------------------

PYTHON = Python(program="/p", modules=frozenset({"vllm"}), vllm="0.32.0", vllm_cpu="")


def a_model(folder: Path) -> Path:
    """Files that count as a whole model, without weights in them."""
    folder.mkdir(parents=True)
    header = json.dumps({"w": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text("{}")
    return folder


def test_a_python_without_vllm_is_said_with_the_ways_out() -> None:
    with pytest.raises(start.Refused, match=r"--python PATH.*docs/serve.md.*--engine mock"):
        start.require(settings(), dataclasses.replace(PYTHON, modules=frozenset()), {})


def test_a_model_that_is_missing_or_not_whole_is_said_with_the_command_that_gets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    with pytest.raises(models.NoModel, match="'rerank fetch'"):
        start.require(settings(), PYTHON, {})
    with pytest.raises(models.NoModel, match=f"There is no model in {tmp_path}/x.*rerank fetch OWNER/NAME --revision COMMIT --to {tmp_path}/x"):
        start.require(settings(model=f"{tmp_path}/x"), PYTHON, {})
    whole = a_model(models.place(models.usual()))
    found = start.require(settings(), PYTHON, {})
    assert found == models.Local(directory=whole, name="qwen3-reranker-0.6b", verified=False)
    (whole / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(models.NoModel, match=r"not whole, model.safetensors is cut off.*'rerank fetch' completes it"):
        start.require(settings(model="Qwen/Qwen3-Reranker-0.6B"), PYTHON, {})


def test_a_model_is_fetched_whole_and_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("HF_TOKEN", "hf_nobody-sees")
    repo, revision = "example/Tiny-Reranker", "1" * 40
    with serving(a_model(tmp_path / "there"), repo, revision) as hub:
        done = CliRunner().invoke(app, ["fetch", repo, "--revision", revision, "--mirror", hub.url, "--json"])
        assert done.exit_code == 0, done.stderr
        again = CliRunner().invoke(app, ["fetch", repo, "--revision", revision, "--mirror", hub.url])
        missing = CliRunner().invoke(app, ["fetch", "example/Other", "--revision", revision, "--mirror", hub.url])
    place = tmp_path / "data/ragflow-reranker/models/tiny-reranker"
    assert json.loads(done.stdout) == {"repo": repo, "revision": revision, "directory": str(place), "name": "tiny-reranker"}
    assert "already here" in again.stderr
    assert models.find("tiny-reranker") == models.find(repo) == models.Local(directory=place, name="tiny-reranker", verified=True)
    assert missing.exit_code == 1
    assert "pulumi" not in missing.stderr


@pytest.mark.parametrize(
    ("visible", "count", "there", "said"),
    [
        ("0", 1, 1, ""),
        ("0,1", 2, 4, ""),
        (None, 1, None, ""),
        (None, 2, 2, ""),
        ("GPU-8f1c,MIG-77", 2, 1, ""),
        ("0,1", 1, 2, "is 1, but CUDA_VISIBLE_DEVICES shows 2 GPUs"),
        ("0", 2, 2, "is 2, but CUDA_VISIBLE_DEVICES shows 1 GPUs"),
        ("0,-1,1", 2, 2, "shows 1 GPUs"),
        ("", 1, 1, "shows the server no GPU"),
        ("-1", 1, 1, "shows the server no GPU"),
        ("0,0", 2, 2, "names a GPU twice"),
        ("0,7", 2, 2, "names GPU 7, but nvidia-smi lists 2"),
        (None, 3, 2, "is 3, but nvidia-smi lists 2"),
        (None, 2, None, "say --visible-devices"),
    ],
)
def test_the_gpus_that_the_server_sees_are_as_many_as_its_tensor_parallel_size(visible: str | None, count: int, there: int | None, said: str) -> None:
    found = gpus.fault(visible, count, lambda: there)
    assert said in found if said else not found


def test_a_gpu_needs_a_vllm_for_it_and_visible_devices_need_a_gpu(tmp_path: Path) -> None:
    model = str(a_model(tmp_path / "m"))
    with pytest.raises(start.Refused, match="built for CPUs"):
        start.require(settings(model=model, device="gpu"), dataclasses.replace(PYTHON, vllm="", vllm_cpu="0.32.0"), {})
    with pytest.raises(start.Refused, match="make them equal"):
        start.require(settings(model=model, device="gpu"), PYTHON, {"CUDA_VISIBLE_DEVICES": "0,1"})
    with pytest.raises(start.Refused, match="is for --device gpu"):
        start.require(settings(model=model, visible_devices="0"), PYTHON, {})
    told = start.surroundings(settings(device="gpu", visible_devices="2,3"), PYTHON, tmp_path, {"RERANK_API_KEY": KEY, "PYTHONPATH": "/mine"})
    assert told["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert "RERANK_API_KEY" not in told
    assert told["PYTHONPATH"] == f"{house.root()}:/mine"


def test_the_package_vllm_cpu_is_given_the_distribution_that_vllm_looks_for(tmp_path: Path) -> None:
    told = start.surroundings(settings(), dataclasses.replace(PYTHON, vllm="", vllm_cpu="0.32.0"), tmp_path, {})
    code = "import importlib.metadata as m; print(m.version('vllm'))"
    said = subprocess.run([sys.executable, "-c", code], env={**os.environ, **told}, capture_output=True, text=True, timeout=60).stdout
    assert said == "0.32.0+cpu\n"
    assert start.surroundings(settings(), PYTHON, tmp_path, {})["PYTHONPATH"] == str(house.root())


def test_a_python_that_is_none_is_said(tmp_path: Path) -> None:
    with pytest.raises(python.NoPython, match="give --python the path of one"):
        python.look(str(tmp_path / "python"))
    found = python.look()
    assert (found.program, "uvicorn" in found.modules, "vllm" in found.modules) == (sys.executable, True, False)


def test_the_launcher_reads_what_the_command_tells_it(tmp_path: Path) -> None:
    model = models.Local(directory=tmp_path, name="m", verified=False)
    told = settings(device="gpu", dials={"gpu_count": 2, "max_num_seqs": 256}, extra=("--uvicorn-log-level", "info"), port=11438)
    verb, *argv = start.arguments(told, model, key_file="/k", scratch="/s")
    assert verb == "launch"
    options = launch.parse(argv)
    assert (options.host, options.port, options.scratch, options.api_key_file, options.unverified) == ("127.0.0.1", 11438, "/s", "/k", True)
    assert (options.device, options.gpu_count, options.gpu_memory_utilization_percent, options.max_num_seqs) == ("gpu", 2, 85, 256)
    assert (options.served_model_names, options.extra) == (("m",), ("--uvicorn-log-level", "info"))


@pytest.mark.parametrize(
    ("sentence", "here"),
    [
        (
            "raise memoryGiB, lower kvCacheGiB or choose a smaller model.",
            "use a machine with more memory, lower --kv-cache-gib or choose a smaller model.",
        ),
        ("lower maxModelLen.", "lower --max-model-len."),
        ("is a Qwen3ForCausalLM of vLLM", "is a Qwen3ForCausalLM of vLLM"),
    ],
)
def test_what_the_launcher_says_of_keys_is_said_in_options(sentence: str, here: str) -> None:
    assert start.spoken(sentence) == here


def test_the_last_words_are_the_ones_that_tell(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_text(
        'The last start said this.\nrerank serve: started at 2026\n{"launch": "cpu"}\nINFO 1\nTraceback (most recent call last):\n  File "x", line 1\nRuntimeError: no\n\n'
    )
    assert start.last_words(file) == ["RuntimeError: no"]
    assert start.last_words(tmp_path / "none") == [f"nothing in its log {tmp_path}/none"]


# -- the log --------------------------------------------------------------------------------------------------------------


def test_the_log_is_turned_over_and_old_files_go(tmp_path: Path) -> None:
    line = b"x" * 1023 + b"\n"
    argv = [sys.executable, "-I", str(log.__file__), str(tmp_path / "server.log"), "1"]
    subprocess.run(argv, input=line * 5000 + b"last\xff\n", timeout=60, check=True)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["server.log", "server.log.1", "server.log.2"]
    assert all(path.stat().st_size <= 1 << 20 for path in tmp_path.iterdir())
    assert (tmp_path / "server.log").read_text().splitlines()[-1] == "last\ufffd"


def test_a_log_is_followed_across_its_turns_until_the_server_ends(tmp_path: Path) -> None:
    file = tmp_path / "server.log"
    file.write_text("one\ntwo\n")
    assert tail.last(file, 1) == ["two\n"]
    steps = iter(["add", "turn", "add", "end"])
    alive = True

    def pause(_: float) -> None:
        nonlocal alive
        match next(steps):
            case "add":
                with file.open("a") as text:
                    text.write("more\n")
            case "turn":
                file.rename(tmp_path / "server.log.1")
                file.write_text("new\n")
            case "end":
                alive = False

    assert list(tail.follow(file, alive=lambda: alive, pause=pause)) == ["more\n", "new\n", "more\n"]


# -- processes ------------------------------------------------------------------------------------------------------------


def test_a_process_is_not_mistaken_for_another_with_its_number() -> None:
    me = processes.find(os.getpid())
    assert me is not None
    assert me.alive
    assert not dataclasses.replace(me, started=me.started + 1).alive
    assert not dataclasses.replace(me, boot="another").alive
    assert processes.find(2**22 + 1) is None


def test_a_zombie_is_not_alive() -> None:
    child = subprocess.Popen(["true"])
    there = processes.find(child.pid) or Process(0, 0, "")
    wait_until(lambda: not there.alive, seconds=10, every=0.01)
    child.wait()


def test_a_record_that_cannot_be_read_counts_as_none(tmp_path: Path) -> None:
    one = Instance("x", tmp_path)
    for text in ("", "{", "[]", '{"name": "x"}', '{"name": 1, "process": {"pid": 1}}'):
        (tmp_path / instance.NAME).write_text(text)
        assert one.record() is None, text


# -- the seed -------------------------------------------------------------------------------------------------------------

# What start_rerank.sh and the direct `vllm serve` line of seed 003 can be told, and nothing else of theirs.
SEED = (
    "MODEL_PATH", "PORT", "CUDA_VISIBLE_DEVICES", "TP", "MAX_NUM_BATCHED_TOKENS", "MAX_NUM_SEQS", "GPU_MEMORY_UTILIZATION",
    "--served-model-name", "--task", "--port", "--tensor-parallel-size", "--gpu-memory-utilization", "--max-model-len", "--dtype", "--enable-prefix-caching",
    "--max-num-batched-tokens", "--max-num-seqs", "--uvicorn-log-level", "--disable-uvicorn-access-log", "--disable-log-stats", "nohup", "log/", "> vllm.log 2>&1 &",
    "start", "status", "tail",
)  # fmt: skip


def test_every_parameter_of_the_seeds_script_has_its_equal_in_the_documentation() -> None:
    table = (ROOT / "docs/serve.md").read_text().partition("## Coming from")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("| `")]
    assert {name for left, _ in rows for name in re.findall(r"`([^`]+)`", left)} >= set(SEED)
    flags = {flag for _, right in rows for flag in re.findall(r"(?<=[`\s])--[a-z][a-z-]+", right)}
    known = {option for parameter in get_command(serve.app).commands["start"].params for option in (*parameter.opts, *parameter.secondary_opts)}  # type: ignore[attr-defined]
    assert flags - known == {"--runner", "--uvicorn-log-level", "--disable-log-stats"}, "those are vLLM's own"
    assert all(right for _, right in rows)
