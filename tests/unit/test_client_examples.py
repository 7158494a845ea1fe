"""examples/client/ as their readers start them, against the service around the mock's engine; and the Python in docs/client.md."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.launch import mock
from tests.support import asgi
from tests.support.engine import ROOT, free_port
from tests.support.options import service_options


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with asgi.running(mock.build(service_options(served_model_names=("qwen3-reranker-0.6b",)))) as (host, port):
        yield f"http://{host}:{port}"


def run(*arguments: str, url: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RERANK_")} | {"PYTHONUTF8": "1"}
    if url:
        environment["RERANK_URL"] = url
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_the_capital_of_china_is_found(url: str) -> None:
    done = run("-m", "examples.client.capital", url=url)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "the best 3 of 5, by qwen3-reranker-0.6b:"
    assert lines[1].endswith("The capital of China is Beijing.")
    assert len(lines[-1].rpartition(":")[2].split()) == 5


def test_a_search_of_ones_own_files_names_file_and_line_of_what_answers(url: str, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "battery.md").write_text(
        "# Battery\n\nIt lasts eight hours.\n\nThe warranty on the battery\nis two years.\n", encoding="utf-8"
    )
    (tmp_path / "other.txt").write_text("Shipping takes three days.\n\nReturns are free.\n", encoding="utf-8")
    (tmp_path / "image.png").write_bytes(b"\x89PNG battery warranty")
    done = run("-m", "examples.client.search", str(tmp_path), "How long is the warranty on the battery?", url=url)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.match(r"0\.\d{3}  .*/deep/battery\.md:5\n +The warranty on the battery is two years\.\n", done.stdout)
    assert "other.txt" not in done.stdout
    nothing = run("-m", "examples.client.search", str(tmp_path), "xyzzy", url=url)
    assert (nothing.returncode, nothing.stdout) == (1, "")
    assert "has a word of that" in nothing.stderr


@pytest.mark.parametrize("arguments", [("examples.client.capital",), ("examples.client.search", "docs", "How long does RAGFlow wait?")])
def test_without_a_service_they_say_what_to_do_in_one_line(arguments: tuple[str, ...]) -> None:
    for url, said in (("", "RERANK_URL is not set. export RERANK_URL="), (f"http://127.0.0.1:{free_port()}", "refused. Is the service running")):
        done = run("-m", *arguments, url=url)
        assert done.returncode == 1
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_the_documents_first_example_runs_as_it_stands(url: str) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "client.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) > 3
    done = run("-c", blocks[0].replace("http://127.0.0.1:8123", url), url="")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("0.")
    for block in blocks:
        compile(block, "docs/client.md", "exec")
