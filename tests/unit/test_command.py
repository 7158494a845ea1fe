"""The command `rerank` as a user meets it: help, wrong usage, exit codes, what goes to which stream, and the package that brings it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rerank import deployed, house
from rerank.command import VERBS, app
from rerank.version import VERSION
from tests.support.recording import ROOT

run = CliRunner()


def rerank(*words: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, without a terminal."""
    told = {**os.environ, "COLUMNS": "200", **environment}
    return subprocess.run([sys.executable, "-m", "rerank", *words], input=stdin, capture_output=True, text=True, timeout=120, env=told, cwd=ROOT)


def test_help_lists_every_verb_and_imports_none() -> None:
    code = "import sys; from rerank.command import app; app(['--help'], standalone_mode=False); " + (
        "print('IMPORTED', [name for name in sys.modules if name.startswith(('rerank.command.', 'serving', 'yaml', 'torch'))])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT, check=True).stdout
    assert [verb for verb in VERBS if verb not in said] == []
    assert "Exit status" in said
    assert said.splitlines()[-1] == "IMPORTED ['rerank.command.out']"


@pytest.mark.parametrize(
    "verb", [*([name] for name in VERBS), *(["serve", name] for name in ("start", "run", "status", "tail", "stop", "restart"))], ids=" ".join
)
def test_every_verb_has_a_help_text(verb: list[str]) -> None:
    found = run.invoke(app, [*verb, "--help"])
    assert found.exit_code == 0, found.output
    assert f"rerank {' '.join(verb)}" in found.output.replace("\n", " ")


def test_the_version_is_the_packages() -> None:
    assert run.invoke(app, ["--version"]).output == f"rerank {VERSION}\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sreve"], "Did you mean 'serve'?"),
        (["serve", "begin"], "No such command 'begin'"),
        (["serve", "start", "--engine", "llama"], "'llama' must be vllm or mock"),
        (["serve", "start", "--device", "tpu"], "'tpu' must be cpu or gpu"),
        (["serve", "start", "--port", "0"], "Invalid value for '--port'"),
        (["serve", "start", "--kv-cache-gib", "0"], "must be from 1 to 1024 GiB"),
        (["serve", "start", "--dtype", "int8"], "must be one of auto, float32"),
        (["serve", "start", "--name", "../x"], "letters, digits"),
        (["serve", "start", "stray"], "is no argument of vLLM's"),
        (["serve", "stop", "--grace", "-1"], "Invalid value for '--grace'"),
        (["cold", "query"], "Missing argument"),
        (["cold", "--engine", "tgi", "query", "document"], "must be vllm or transformers"),
        (["cold", "query", "-"], "no document on standard input"),
        (["fetch", "nobody"], "must be OWNER/NAME"),
        (["fetch", "Qwen/Qwen3-Reranker-4B"], "say --revision"),
        (["fetch", "--source", "ftp"], "must be hub or modelscope"),
        (["status", "ftp://x"], "is no http address"),
        (["status", "/no/such/file"], "cannot be read"),
        (["status", "-", "--stack", "laptop"], "give one"),
        (["status", "--stack", "nowhere"], "choose one of home-server, laptop, mock"),
        (["logs", "http://127.0.0.1:9"], "has no log that HTTP shows"),
        (["wait", "--timeout", "-1"], "Invalid value for '--timeout'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_ends_with_2_and_says_what_is_right(words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "400")
    found = run.invoke(app, words, env={"TERMINAL_WIDTH": "400"})
    assert found.exit_code == 2, found.output
    assert said in " ".join(found.stderr.split())
    assert found.stdout == ""


def test_a_refusal_is_one_sentence_on_standard_error_without_colour_where_that_is_no_terminal() -> None:
    done = rerank("status", "http://127.0.0.1:9/v1", "--json")
    assert done.returncode == 3
    assert json.loads(done.stdout)["state"] == deployed.UNREACHED
    done = rerank("status", "-", stdin="{}")
    assert done.returncode == 1
    assert done.stderr == "error: standard input has no internalUrl: the stack is not up, run 'make up' (or pulumi up) first\n"
    assert done.stdout == ""


def test_a_pipe_that_closes_early_ends_the_command_without_a_trace() -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m rerank serve start --help | head -1; echo ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )
    assert "Traceback" not in done.stderr


def test_shell_completion_completes_verbs() -> None:
    told = {"_RERANK_COMPLETE": "complete_bash", "COMP_WORDS": "rerank sta", "COMP_CWORD": "1"}
    done = rerank(**told)
    assert done.stdout.split() == ["status"]


def test_the_defaults_are_pulumi_yamls() -> None:
    assert house.defaults()["kv_cache_gib"] == 1
    assert house.defaults()["max_body_mib"] == 16
    assert house.snake("gpuMemoryUtilizationPercent") == "gpu_memory_utilization_percent"


def test_a_package_of_the_same_name_in_this_process_is_no_house(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "serving", json)
    with pytest.raises(ImportError, match="another package named serving"):
        house.enter("serving")


def test_an_installed_copy_has_the_server_inside_and_nothing_general_beside_it(tmp_path: Path) -> None:
    kept = ["rerank", "serving", "host", "Pulumi.yaml", "pyproject.toml", "README.md"]
    listed = subprocess.run(["git", "ls-files", *kept], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    source, site = tmp_path / "source", tmp_path / "site"
    for name in listed:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    (site / "rerank").mkdir(parents=True)
    (site / "rerank/gone.py").touch()  # of an earlier build
    # What a build backend calls; the wheel around it would need a package more.
    build = ["-c", "import setuptools; setuptools.setup()", "-q", "build", "--build-lib", str(site)]
    subprocess.run([sys.executable, *build], cwd=source, check=True, timeout=120, capture_output=True)
    files = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    assert files == {name if name.startswith("rerank/") else f"rerank/_house/{name}" for name in listed} - {
        f"rerank/_house/{name}" for name in ("pyproject.toml", "README.md")
    }
    told = {**os.environ, "PYTHONPATH": str(site), "XDG_STATE_HOME": str(tmp_path / "state")}
    shown = subprocess.run(
        [sys.executable, "-m", "rerank", "serve", "status", "--json"], cwd=tmp_path, env=told, capture_output=True, text=True, timeout=60
    )
    assert (shown.returncode, shown.stdout) == (1, "[]\n"), shown.stderr
