"""A real RAGFlow asks our service, with the mock behind it: registered, tried by RAGFlow itself, asked by /api/v1/retrieval.

RAGFLOW_API is its API server's address and RAGFLOW_API_KEY a key of it. The services that it asks listen on loopback of this machine, so it must run here.
What takes time is printed, never asserted.
"""

import asyncio
import json
import os
import secrets
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from serving import dials
from serving.asgi import App, Message, Receive, Send
from serving.launch import mock
from serving.options import ServiceOptions
from setup import tiers
from tests.support import asgi, contract, embeddings
from tests.support.real_ragflow import Ragflow, Reply
from tests.unit.builders import a_settings

MODEL = "qwen3-reranker-0.6b"
CHUNKS = 66
ONE_CALL = 64  # v0.25 asks about no more
# words that RAGFlow's stemmer leaves as they are: it sends stems
WORDS = ("river", "water", "north", "harbor", "cloud", "garden", "winter", "market", "silver", "forest")
QUESTION = " ".join(WORDS)
SLOW_SECONDS = 2.0
ASKERS = 3
LONG_WORDS = 1765
TRIALS = 4


class Gate:
    """In front of a service (ASGI): notes what it is asked, and can be slow or refuse in its place."""

    def __init__(self, app: App) -> None:
        self.app, self.seconds, self.refusal = app, 0.0, 0
        self.posts = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            return await self.app(scope, receive, send)
        self.posts += 1
        await asyncio.sleep(self.seconds)
        if not self.refusal:
            return await self.app(scope, receive, send)
        body = {"error": {"message": "the key is wrong", "type": "x", "param": None, "code": self.refusal}}
        await send({"type": "http.response.start", "status": self.refusal, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})


@dataclass(frozen=True)
class Reranker:
    """Our service behind a gate, known to RAGFlow by `id`."""

    gate: Gate
    url: str
    id: str
    added: Reply

    def answers(self, query: str, model: str = MODEL) -> contract.Answer:
        """What the service itself says, asked as RAGFlow asks it."""
        ask = contract.Http(self.url)
        try:
            body = {"model": model, "query": query, "documents": ["a river", "a stone"], "top_n": 2, "return_documents": False}
            return ask("POST", "/v1/rerank", json.dumps(body).encode(), [contract.JSON, ("Authorization", "Bearer x")])
        finally:
            ask.close()


@pytest.fixture(scope="module")
def ragflow() -> Ragflow:
    return Ragflow(os.environ[tiers.RAGFLOW_ADDRESS].rstrip("/"), os.environ[tiers.RAGFLOW_KEY])


@pytest.fixture(scope="module")
def dataset(ragflow: Ragflow) -> Iterator[str]:
    """A dataset of 66 chunks, in which chunk n has n % 10 + 1 of the question's words."""
    name = f"test-{secrets.token_hex(4)}"
    with asgi.running(embeddings.app) as (host, port):
        for _ in range(TRIALS):  # a RAGFlow that was just started loads its client within the 10 s of its trial
            added = ragflow.register("embedding", name, f"http://{host}:{port}/v1", "x", name)
            if added.good:
                break
        assert added.good, added
        dataset = ""
        try:
            dataset = ragflow.dataset(name, ragflow.model_id(name, name))
            document = ragflow.document(dataset, f"{name}.txt")
            for number in range(CHUNKS):
                ragflow.chunk(dataset, document, f"{' '.join(WORDS[: number % len(WORDS) + 1])} {number} page")
            yield dataset
        finally:
            if dataset:
                ragflow.call("DELETE", "/api/v1/datasets", {"ids": [dataset]})
            ragflow.remove(name, name)


def service(**over: object) -> ServiceOptions:
    """The service as a stack has it that changes nothing."""
    return dials.take(ServiceOptions, a_settings(), served_model_names=(MODEL,), **over)


@contextmanager
def reranker(ragflow: Ragflow, *, model: str = MODEL, key: str = "x") -> Iterator[Reranker]:
    """The mock's service, added to RAGFlow and removed afterwards."""
    gate = Gate(mock.build(service()))
    name = f"test-{secrets.token_hex(4)}"
    with asgi.running(gate) as (host, port):
        url = f"http://{host}:{port}"
        added = ragflow.register("rerank", model, f"{url}/v1", key, name)
        try:
            yield Reranker(gate, url, ragflow.model_id(model, name), added)
        finally:
            ragflow.remove(model, name)


@pytest.fixture
def added(ragflow: Ragflow) -> Iterator[Reranker]:
    with reranker(ragflow) as one:
        assert one.added.good, one.added
        yield one


def test_ragflow_tries_the_model_itself_when_it_is_added(added: Reranker) -> None:
    assert added.gate.posts in (1, 2)  # v0.26 tries it twice


def test_a_model_that_does_not_answer_is_not_added(ragflow: Ragflow) -> None:
    name = f"test-{secrets.token_hex(4)}"
    refused = ragflow.register("rerank", MODEL, "http://127.0.0.1:9/v1", "x", name)
    assert refused.code == 102
    assert not refused.logs_out
    assert not ragflow.providers or name not in ragflow.instances()


def test_without_a_reranker_all_chunks_are_found(ragflow: Ragflow, dataset: str) -> None:
    found = ragflow.retrieve(dataset, QUESTION)
    assert found.good, found
    assert len(found.data["chunks"]) == CHUNKS


def test_a_question_is_ranked_by_our_scores_in_one_call(ragflow: Ragflow, dataset: str, added: Reranker) -> None:
    trials = added.gate.posts
    found = ragflow.retrieve(dataset, QUESTION, added.id)
    assert found.good, found
    assert added.gate.posts == trials + 1
    chunks = found.data["chunks"]
    assert ONE_CALL <= len(chunks) <= CHUNKS
    ours = [chunk["vector_similarity"] for chunk in chunks]
    assert len({round(score, 2) for score in ours}) >= len(WORDS)
    by_words: dict[int, list[float]] = {}
    for chunk in chunks:
        by_words.setdefault(sum(word in chunk["content"].split() for word in WORDS), []).append(chunk["vector_similarity"])
    for few in range(1, len(WORDS)):
        assert max(by_words[few]) < min(by_words[few + 1])
    assert chunks[0]["content"].startswith(QUESTION)


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_key_logs_the_user_out_as_401_and_is_a_message_as_403(ragflow: Ragflow, dataset: str, added: Reranker, status: int) -> None:
    added.gate.refusal = status
    refused = ragflow.retrieve(dataset, QUESTION, added.id)
    assert not refused.good
    assert refused.logs_out == (status == 401), refused
    assert ("the key is wrong" in refused.message) == (status == 403), refused


def test_our_services_own_word_for_a_wrong_key_is_a_message(ragflow: Ragflow, dataset: str, added: Reranker, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("another\n")
    added.gate.app = mock.build(service(api_key_file=str(keys)))
    assert added.answers(QUESTION).status == 403
    refused = ragflow.retrieve(dataset, QUESTION, added.id)
    assert not refused.good
    assert not refused.logs_out, refused


def test_a_long_question_is_answered(ragflow: Ragflow, dataset: str, added: Reranker) -> None:
    question = " ".join(WORDS[number % len(WORDS)] for number in range(LONG_WORDS))
    assert added.answers(question).status == 200
    found = ragflow.retrieve(dataset, question, added.id)
    assert not found.logs_out, found
    assert found.good, found
    assert ONE_CALL <= len(found.data["chunks"]) <= CHUNKS


@pytest.mark.parametrize("name", ["Qwen3-Reranker-0.6B", "QWEN3-RERANKER-0.6B"])
def test_the_name_is_taken_in_any_case(ragflow: Ragflow, dataset: str, name: str) -> None:
    with reranker(ragflow, model=name) as one:
        assert one.answers(QUESTION, name).status == 200
        assert one.added.good, one.added
        assert ragflow.retrieve(dataset, QUESTION, one.id).good


def test_three_questions_at_once_are_all_answered(ragflow: Ragflow, dataset: str, added: Reranker, capsys: pytest.CaptureFixture[str]) -> None:
    added.gate.seconds = SLOW_SECONDS
    over = threading.Event()
    pings: list[float] = []

    def ping() -> None:
        while not over.is_set():
            start = time.monotonic()
            assert ragflow.call("GET", ragflow.ping_path).status == 200
            pings.append(time.monotonic() - start)
            over.wait(0.05)

    def ask(_: int) -> tuple[Reply, float]:
        start = time.monotonic()
        return ragflow.retrieve(dataset, QUESTION, added.id), time.monotonic() - start

    assert ragflow.ping_path
    with ThreadPoolExecutor(ASKERS + 1) as pool:
        pinging = pool.submit(ping)
        answers = list(pool.map(ask, range(ASKERS)))
        over.set()
        pinging.result()
    assert [answer.good for answer, _ in answers] == [True] * ASKERS
    took = ", ".join(f"{seconds:.1f}" for seconds in sorted(seconds for _, seconds in answers))
    with capsys.disabled():
        print(f"\nRAGFlow {ragflow.version}, {ASKERS} questions at once, a reranker of {SLOW_SECONDS:g} s: answered after {took} s; "
              f"{len(pings)} pings, the slowest {max(pings):.1f} s")  # fmt: skip
