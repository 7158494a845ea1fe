"""A call of 14 MiB beside the event loop: nobody else waits for it. What runs where, and in which pieces, not how long it takes."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from serving.engines.mock import MockEngine
from serving.launch import mock
from serving.rank import cache, scorer
from serving.web import answer, api, pieces
from tests.support.options import service_options
from tests.support.virtual import Answer, ask

BYTES = 14 << 20
PIECE = 1 << 20  # what goes through in one go, at most
LARGE = {"max_body_mib": 16, "max_documents": 1000, "max_model_len": 512}  # the mock reads no more words of a document than that
WORDS = "the capital of China is Beijing "


@dataclass
class Record:
    """Sizes of what went through json's functions in one go, and the threads in which each kind of work was done."""

    sizes: list[int] = field(default_factory=list)
    threads: dict[str, set[int]] = field(default_factory=dict)

    def work(self, name: str, done: Callable[..., Any], counts: Callable[..., bool] = lambda *_: True) -> Callable[..., Any]:
        """`done`, its thread noted where the arguments make it count."""

        def noted(*arguments: Any, **more: Any) -> Any:
            if counts(*arguments):
                self.threads.setdefault(name, set()).add(threading.get_ident())
            return done(*arguments, **more)

        return noted


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> Record:
    made = Record()
    loads, dumps, scan, keyed = json.loads, json.dumps, pieces._scan, json.decoder.scanstring  # type: ignore[attr-defined]

    def loading(text: Any, **more: Any) -> Any:
        made.sizes.append(len(text))
        return loads(text, **more)

    def dumping(given: Any, **more: Any) -> str:
        said = dumps(given, **more)
        made.sizes.append(len(said))
        return said

    def scanning(read: Any) -> Any:
        def scanned(text: str, start: int, strict: bool = True) -> tuple[str, int]:
            found, end = read(text, start, strict)
            made.sizes.append(end - start)
            return found, end

        return scanned

    monkeypatch.setattr(json, "loads", loading)
    monkeypatch.setattr(json, "dumps", dumping)
    monkeypatch.setattr(pieces, "_scan", scanning(scan))
    monkeypatch.setattr(json.decoder, "scanstring", scanning(keyed))
    monkeypatch.setattr(api, "parse", made.work("parsing", api.parse))
    monkeypatch.setattr(scorer, "digest", made.work("hashing", cache.digest, lambda *texts: max(map(len, texts)) > 1000))
    monkeypatch.setattr(answer, "rerank_body", made.work("writing", answer.rerank_body))
    monkeypatch.setattr(MockEngine, "prompts", made.work("tokenizing", MockEngine.prompts))
    return made


@contextlib.contextmanager
def ticking() -> Iterator[list[int]]:
    """What else the event loop has to do; it notes its thread each time it has its turn."""
    turns: list[int] = []

    async def tick() -> None:
        while True:
            turns.append(threading.get_ident())
            await asyncio.sleep(0)

    task = asyncio.get_running_loop().create_task(tick())
    try:
        yield turns
    finally:
        task.cancel()


def large(documents: list[str], **more: Any) -> bytes:
    """The body of a call, about 14 MiB of it."""
    return json.dumps({"query": "capital of China", "documents": documents}, **more).encode()


BODIES = {
    "a thousand documents": lambda: large([f"{number} " + WORDS * (BYTES // 1000 // len(WORDS)) for number in range(1000)]),
    "one document": lambda: large([WORDS * (BYTES // len(WORDS))]),
    "one document of escapes": lambda: large(["中国的首都是北京 " * (BYTES // 49)], ensure_ascii=True),
    "one document of pairs of surrogates": lambda: large(["😀" * (BYTES // 12)], ensure_ascii=True),
    "one document of quotes and lines": lambda: large(['"a"\n' * (BYTES // 7)]),
}


@pytest.mark.parametrize("kind", BODIES)
def test_a_large_call_is_read_hashed_and_written_beside_the_event_loop_in_pieces(kind: str, record: Record) -> None:
    body = BODIES[kind]()
    assert len(body) > 13 << 20
    record.sizes.clear()

    async def told() -> tuple[Answer, int, int]:
        service = mock.build(service_options(**LARGE))
        with ticking() as turns:
            await asyncio.sleep(0)
            before = len(turns)
            found = await ask(service, "POST", "/v1/rerank", body, {"x-rerank-deadline-seconds": "600"})
            assert found is not None
            return found, turns[0], len(turns) - before

    found, loop, turns = asyncio.run(told())
    assert found.status == 200
    assert record.threads.keys() == {"parsing", "hashing", "writing", "tokenizing"}
    for name, threads in record.threads.items():
        assert loop not in threads, f"{name} in the event loop's thread"
    assert turns > 0
    assert record.sizes
    assert max(record.sizes) <= PIECE
    assert len(found.body) > 4 << 20, "the documents come back"
    assert found.headers["x-rerank-scored"] == found.headers["x-rerank-documents"]


@pytest.mark.parametrize("kind", BODIES)
def test_what_comes_back_of_a_large_call_is_what_was_sent(kind: str) -> None:
    body = BODIES[kind]()

    async def told() -> Answer:
        service = mock.build(service_options(**LARGE))
        found = await ask(service, "POST", "/v1/rerank", body, {"x-rerank-deadline-seconds": "600"})
        assert found is not None
        return found

    results = asyncio.run(told()).json()["results"]
    sent = json.loads(body)["documents"]
    assert len(results) == len(sent)
    assert all(result["document"]["text"] == sent[result["index"]] for result in results)


@pytest.mark.parametrize(
    "body",
    [b'{"query": "' + b"x" * BYTES, b"[" * BYTES, b"[" + b"1," * (BYTES // 2) + b"1]", b'{"query": "q", "documents": ["' + b"\\u4e2d" * (BYTES // 6)],
    ids=["a text without an end", "nothing but brackets", "nothing but ones", "escapes without an end"],
)  # fmt: skip
def test_what_is_large_and_no_call_is_refused_beside_the_event_loop_as_well(body: bytes, record: Record) -> None:
    async def told() -> tuple[Answer, int]:
        service = mock.build(service_options(max_body_mib=16))
        found = await ask(service, "POST", "/v1/rerank", body, {"x-rerank-deadline-seconds": "600"})
        assert found is not None
        return found, threading.get_ident()

    found, loop = asyncio.run(told())
    assert found.status == 400
    assert record.threads.keys() == {"parsing"}
    assert loop not in record.threads["parsing"]
    assert max(record.sizes) <= PIECE


def test_a_small_call_is_read_where_it_came_because_to_hand_it_over_takes_longer(record: Record) -> None:
    async def told() -> int:
        service = mock.build(service_options())
        assert await ask(service, "POST", "/v1/rerank", {"query": "q", "documents": ["d"]}) is not None
        return threading.get_ident()

    loop = asyncio.run(told())
    assert record.threads["parsing"] == {loop}
