"""`launch`: its arguments, its one line in the log, and that it becomes vLLM or ends in a sentence."""

import dataclasses
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from serving import dials
from serving.launch.decide import Decision, Launch
from serving.launch.options import LaunchOptions, parse, written
from serving.launch.run import report
from tests.support.options import LAUNCH, launch_options

ROOT = Path(__file__).parents[2]
REQUIRED = [item.name for item in dataclasses.fields(LaunchOptions) if item.default is dataclasses.MISSING]


def without(argv: list[str], name: str) -> list[str]:
    """The arguments without a flag and its value."""
    pairs = list(zip(argv[::2], argv[1::2], strict=True))
    return [word for flag, value in pairs if flag != dials.flag(name) for word in (flag, value)]


def test_arguments_become_options_and_what_follows_two_dashes_is_vllms() -> None:
    options = launch_options(model="/m", served_model_names=("a", "b"), api_key_file="/k", unverified=True, extra=("--seed", "1", "--", "x"))
    argv = written(options)
    assert argv[-5:] == ["--", "--seed", "1", "--", "x"]
    assert parse(argv) == options
    assert parse([*written(launch_options()), "--"]) == launch_options()
    other = launch_options(threads=3, block_size=64, prefix_caching=False, preload=False, enforce_eager=False, golden_check=False)
    assert parse(written(other)) == other


def test_the_flags_are_spelled_as_the_keys_of_pulumi_yaml_are_in_snake_case() -> None:
    argv = shlex.split(
        "--device cpu --model /m --served-model-names a --served-model-names b --max-model-len 4096 --dtype auto --kv-cache-gib 1 "
        "--max-num-batched-tokens 0 --max-num-seqs 0 --threads 0 --block-size 0 --prefix-caching on --preload on --enforce-eager off --instruction x "
        "--deadline-seconds 25 --min-document-tokens 64 --unscored below --max-query-tokens 512 --max-documents 1024 --max-body-mib 8 --cache-entries 1000 "
        "--golden-check on --page on --gpu-count 2 --gpu-memory-utilization-percent 85 --unverified on --api-key-file /k -- --seed 1"
    )
    assert parse(argv) == launch_options(
        model="/m",
        served_model_names=("a", "b"),
        enforce_eager=False,
        instruction="x",
        min_document_tokens=64,
        unscored="below",
        max_query_tokens=512,
        max_documents=1024,
        max_body_mib=8,
        cache_entries=1000,
        gpu_count=2,
        gpu_memory_utilization_percent=85,
        unverified=True,
        api_key_file="/k",
        extra=("--seed", "1"),
    )


def test_an_argument_of_vllms_does_not_become_one_of_the_launchers() -> None:
    options = launch_options(extra=("--threads", "7", "--unknown"))
    assert parse(written(options)) == options


@pytest.mark.parametrize("missing", REQUIRED)
def test_no_argument_that_pulumi_yaml_gives_a_default_has_another_one_here(missing: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(without(written(launch_options()), missing))
    assert ended.value.code == 2
    assert dials.flag(missing) in capsys.readouterr().err


def test_only_what_no_stack_file_sets_has_a_default_here() -> None:
    defaults = {item.name for item in dataclasses.fields(LaunchOptions)} - set(REQUIRED)
    # A dial of the GPU is no argument of a CPU's container; the others are of the deployment, not of the stack.
    assert defaults == {
        "api_key_file", "model", "tokens_per_pass", "number_format", "gpu_count", "gpu_memory_utilization_percent", "unverified", "host", "port", "scratch", "extra"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("flag", "wrong"), [("--device", "tpu"), ("--dtype", "int8"), ("--kv-cache-gib", "0"), ("--threads", "-1"), ("--preload", "yes")]
)
def test_an_argument_against_its_rule_ends_the_launch_before_it_begins(flag: str, wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    argv = written(launch_options())
    argv[argv.index(flag) + 1] = wrong
    with pytest.raises(SystemExit) as ended:
        parse(argv)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert flag in said
    assert repr(wrong) in said


def test_the_report_is_one_line_of_json_with_every_reason() -> None:
    line = report(LAUNCH, Launch(argv=("-m", "x\ny"), env={"A": "1"}, decisions=(Decision(what="dtype", value="float32", why="because"),)))
    assert "\n" not in line
    assert json.loads(line) == {
        "launch": "cpu",
        "model": "/models/some-reranker",
        "decisions": {"dtype": ["float32", "because"]},
        "argv": ["-m", "x\ny"],
        "env": {"A": "1"},
    }


def fake_vllm(folder: Path) -> Path:
    """A package named vllm whose server prints what it was started with and waits for SIGTERM."""
    module = folder / "vllm/entrypoints/openai/api_server.py"
    module.parent.mkdir(parents=True)
    for package in (folder / "vllm", folder / "vllm/entrypoints", module.parent):
        (package / "__init__.py").touch()
    module.write_text(
        "import json, os, signal, sys\nfor i, a in enumerate(sys.argv):\n    if a == '--chat-template': template = open(sys.argv[i + 1]).read()\n"
        "print(json.dumps({'pid': os.getpid(), 'argv': sys.argv[1:], 'user': os.environ['USER'], 'offline': os.environ['HF_HUB_OFFLINE'],"
        " 'template': template}), flush=True)\nsignal.pause()\n"
    )
    return folder


def launch(folder: Path, *argv: str) -> subprocess.Popen[str]:
    env = {name: text for name, text in os.environ.items() if name not in ("USER", "LD_PRELOAD")} | {"PYTHONPATH": f"{ROOT}:{folder}"}
    return subprocess.Popen([sys.executable, "-m", "serving", "launch", *argv], env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def small_model(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(
        json.dumps(
            {
                "architectures": ["Qwen3ForCausalLM"],
                "num_hidden_layers": 2,
                "num_key_value_heads": 2,
                "head_dim": 64,
                "max_position_embeddings": 40960,
                "vocab_size": 1024,
                "hidden_size": 128,
            }
        )
    )
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"x")
    return folder


def gpu(directory: Path, **changes: Any) -> list[str]:
    """Arguments for a GPU, which asks nothing of this machine."""
    return written(launch_options(device="gpu", gpu_count=1, gpu_memory_utilization_percent=85, model=str(directory), **changes))


def test_the_launcher_becomes_vllm_so_that_signals_reach_it(tmp_path: Path) -> None:
    directory = small_model(tmp_path / "m")
    process = launch(fake_vllm(tmp_path), *gpu(directory, unverified=True, instruction="Find “it”", extra=("--seed", "1")))
    try:
        assert process.stdout is not None
        said, started = json.loads(process.stdout.readline()), json.loads(process.stdout.readline())
        process.terminate()
        assert process.wait(20) == -15
    finally:
        process.kill()
        process.communicate()
    assert started["pid"] == process.pid
    assert said["argv"][2:] == started["argv"]
    assert started["argv"][-2:] == ["--seed", "1"]
    assert (started["user"], started["offline"]) == ("reranker", "1")
    assert 'stack_instruction = "Find \\u201cit\\u201d"' in started["template"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "has no reranker-manifest.json"),
        ({"unverified": True, "api_key_file": "/nowhere/keys"}, "The API key file /nowhere/keys cannot be read (No such file or directory)"),
        ({"unverified": True, "extra": ("--port", "1")}, "vllmExtraArgs has --port;"),
        ({"unverified": True, "max_model_len": 40960, "model": "/nowhere"}, "The model directory /nowhere is missing or closed to user"),
    ],
)
def test_a_refused_launch_ends_in_one_sentence_and_status_1(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    argv = written(dataclasses.replace(parse(gpu(small_model(tmp_path / "m"))), **changes))
    process = launch(fake_vllm(tmp_path), *argv)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (1, "")
    assert message in err
    assert err.count("\n") == 1
