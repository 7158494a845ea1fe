"""`rerank rank` against the real service around the mock's engine: what comes out, where, and with which exit status."""

import json
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from rerank.command import app
from serving.launch import mock
from tests.support import asgi
from tests.support.options import service_options

run = CliRunner()
QUERY = "What is the capital of China?"
DOCUMENTS = ["Apples grow on trees.", "The capital of China is Beijing.", "China is a large country in Asia."]


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name in ("RERANK_URL", "RERANK_MODEL", "RERANK_API_KEY", "RERANK_API_KEY_FILE"):
        monkeypatch.setenv(name, "")  # the verb sets them for its client; pytest sets them back
    with asgi.running(mock.build(service_options(served_model_names=("qwen3-reranker-0.6b",), api_key_file=""))) as (host, port):
        yield f"http://{host}:{port}"


def test_the_best_document_comes_first_with_its_score_and_place(url: str) -> None:
    found = run.invoke(app, ["rank", QUERY, *DOCUMENTS, "--url", url, "--top-n", "2"])
    lines = found.stdout.splitlines()
    assert (found.exit_code, len(lines)) == (0, 2), found.output
    score, place, *words = lines[0].split()
    assert 0 < float(score) <= 1
    assert (place, " ".join(words)) == ("1", DOCUMENTS[1])


def test_documents_come_from_standard_input_and_the_answer_is_the_services_json(url: str) -> None:
    found = run.invoke(app, ["rank", QUERY, "-", "--json"], input="\n".join(DOCUMENTS), env={"RERANK_URL": url})
    assert json.loads(found.stdout)["results"][0]["index"] == 1


def test_scores_in_order_are_those_of_the_ranking(url: str) -> None:
    ranked = run.invoke(app, ["rank", QUERY, *DOCUMENTS, "--url", url]).stdout.splitlines()
    plain = run.invoke(app, ["rank", QUERY, *DOCUMENTS, "--url", url, "--in-order"]).stdout.splitlines()
    assert [line.split()[1] for line in plain] == ["0", "1", "2"]
    assert sorted(plain) == sorted(ranked)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["rank", QUERY, "a"], 2, "RERANK_URL is not set"),
        (["rank", QUERY, "a", "--url", "ftp://x"], 2, "http"),
        (["rank", QUERY, "-", "--url", "URL"], 2, "no document on standard input"),
        (["rank", QUERY, "a", "--url", "URL", "--top-n", "1", "--in-order"], 2, "without --top-n"),
        (["rank", QUERY, "a", "--url", "http://127.0.0.1:9"], 3, "127.0.0.1"),
        (["rank", QUERY, "a", "--url", "URL", "--model", "gpt"], 1, "qwen3-reranker-0.6b"),
    ],
    ids=["no address", "not http", "no document", "both", "nobody there", "wrong model"],
)
def test_what_does_not_work_is_said_with_its_exit_status(url: str, words: list[str], code: int, said: str) -> None:
    found = run.invoke(app, [url if word == "URL" else word for word in words], env={"COLUMNS": "300"})
    assert (found.exit_code, found.stdout) == (code, ""), found.output
    assert said in " ".join(found.stderr.split())
