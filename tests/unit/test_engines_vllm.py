"""The engine over vLLM's app, against a stand-in for that app: what it sends, what it makes of each answer, and how it stops."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from serving.asgi import App, Message, Receive, Send
from serving.engines import vllm
from serving.engines.prompt import PromptMaker
from serving.engines.template import TEMPLATE, render_template
from serving.engines.vllm import VllmEngine
from serving.rank.engine import EngineError
from tests.support import tiny_model

SECRET = "a text of the user's"
Handler = Callable[[Message, bytes, Receive], Awaitable[tuple[int, bytes]]]


def answer(*scores: object) -> bytes:
    """The body of vLLM 0.32's /classify."""
    data = [{"index": index, "label": "LABEL_0", "probs": [score], "num_classes": 1} for index, score in enumerate(scores)]
    usage = {"prompt_tokens": 3, "total_tokens": 3, "completion_tokens": 0, "prompt_tokens_details": None}
    return json.dumps({"id": "classify-1", "object": "list", "created": 1, "model": "m", "data": data, "usage": usage}).encode()


def app(handler: Handler) -> App:
    async def served(scope: Message, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            assert message["type"] == "http.request"
            body, more = body + message.get("body", b""), message.get("more_body", False)
        status, content = await handler(scope, body, receive)
        await send({"type": "http.response.start", "status": status, "headers": []})
        half = len(content) // 2
        await send({"type": "http.response.body", "body": content[:half], "more_body": True})
        await send({"type": "http.response.body", "body": content[half:]})

    return served


def engine(handler: Handler, maker: Any = None) -> VllmEngine:
    return VllmEngine(app(handler), maker, "the-model")


def answering(status: int, content: bytes) -> VllmEngine:
    async def handler(scope: Message, body: bytes, receive: Receive) -> tuple[int, bytes]:
        return status, content

    return engine(handler)


def test_it_posts_token_ids_to_classify_and_gives_the_scores_in_order() -> None:
    seen = []

    async def handler(scope: Message, body: bytes, receive: Receive) -> tuple[int, bytes]:
        seen.append((scope, json.loads(body)))
        return 200, answer(0.25, 1, 0)

    assert asyncio.run(engine(handler).score([[1, 2], [3], [1, 2]])) == [0.25, 1.0, 0.0]
    [(scope, body)] = seen
    assert body == {"model": "the-model", "input": [[1, 2], [3], [1, 2]]}
    assert (scope["type"], scope["method"], scope["path"]) == ("http", "POST", "/classify")
    assert dict(scope["headers"])[b"content-type"] == b"application/json"


def test_answers_out_of_order_are_put_in_order() -> None:
    content = {"data": [{"index": 1, "probs": [0.1]}, {"index": 0, "probs": [0.9]}]}
    assert asyncio.run(answering(200, json.dumps(content).encode()).score([[1], [2]])) == [0.9, 0.1]


def test_no_prompts_are_no_call() -> None:
    assert asyncio.run(answering(500, b"").score([])) == []


@pytest.mark.parametrize("status", [0, 204, 400, 404, 422, 500, 503])
def test_any_other_status_is_an_error_that_names_it_and_no_text(status: int) -> None:
    with pytest.raises(EngineError, match=str(status)) as failed:
        asyncio.run(answering(status, json.dumps({"error": {"message": SECRET}}).encode()).score([[1]]))
    assert SECRET not in str(failed.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"\xff",
        b"{",
        SECRET.encode(),
        b'{"data": null}',
        b'{"data": 3}',
        b'{"data": [3, 4]}',
        b'{"data": [{"index": 0, "probs": [0.5]}, {"probs": [0.5]}]}',
        b'{"data": [{"index": 0, "probs": [0.5]}, {"index": 0, "probs": [0.5]}]}',
        b'{"data": [{"index": 0, "probs": [0.5]}, {"index": 2, "probs": [0.5]}]}',
        b'{"data": [{"index": 0, "probs": [0.5]}, {"index": "1", "probs": [0.5]}]}',
        b'{"data": [{"index": 0, "probs": [0.5]}, {"index": 1, "probs": [0.5, 0.5]}]}',
        b'{"data": [{"index": 0, "probs": [0.5]}, {"index": 1, "probs": []}]}',
        b'{"data": [{"index": 0, "probs": [0.5]}, {"index": 1, "probs": "0.5"}]}',
        answer(0.5),
        answer(0.5, 0.5, 0.5),
        answer(0.5, float("nan")),
        answer(0.5, float("inf")),
        answer(0.5, -0.001),
        answer(0.5, 1.001),
        answer(0.5, True),
        answer(0.5, None),
        answer(0.5, "0.5"),
        b"[" * 100_000,
    ],
)
def test_a_malformed_answer_is_an_error_without_any_of_it(content: bytes) -> None:
    with pytest.raises(EngineError, match="does not have 2 scores") as failed:
        asyncio.run(answering(200, content).score([[1], [2]]))
    assert SECRET not in str(failed.value)


def test_an_exception_in_vllm_is_an_error_that_names_its_kind_only() -> None:
    async def handler(scope: Message, body: bytes, receive: Receive) -> tuple[int, bytes]:
        raise ZeroDivisionError(SECRET)

    with pytest.raises(EngineError, match="ZeroDivisionError") as failed:
        asyncio.run(engine(handler).score([[1]]))
    assert SECRET not in str(failed.value)
    assert failed.value.__cause__ is None


def test_a_call_that_vllm_gives_up_itself_is_an_error_not_a_cancellation() -> None:
    async def handler(scope: Message, body: bytes, receive: Receive) -> tuple[int, bytes]:
        raise asyncio.CancelledError

    with pytest.raises(EngineError, match="gave up"):
        asyncio.run(engine(handler).score([[1]]))


def like_vllm(stopped: list[str]) -> Handler:
    """As vLLM's with_cancellation does: nothing but the client's disconnect stops the work, a cancelled handler leaves it running."""

    async def work() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            stopped.append("stopped")
            raise

    async def handler(scope: Message, body: bytes, receive: Receive) -> tuple[int, bytes]:
        tasks = [asyncio.create_task(work()), asyncio.ensure_future(receive())]
        stopped.append("started")
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        assert [task.result() for task in done] == [{"type": "http.disconnect"}]
        return 200, b"null"

    return handler


async def until(reached: Callable[[], bool]) -> None:
    async def turn() -> None:
        while not reached():
            await asyncio.sleep(0)

    await asyncio.wait_for(turn(), 60)


def test_cancelling_the_call_hangs_up_on_vllm_and_stops_the_work() -> None:
    stopped: list[str] = []

    async def story() -> None:
        call = asyncio.create_task(engine(like_vllm(stopped)).score([[1]]))
        await until(lambda: stopped == ["started"])
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until(lambda: len(stopped) > 1)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await until(lambda: all(task.done() for task in others))

    asyncio.run(story())
    assert stopped == ["started", "stopped"]


def test_a_deadline_of_the_callers_is_a_cancellation() -> None:
    stopped: list[str] = []

    async def story() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(engine(like_vllm(stopped)).score([[1]]), 0.01)
        await until(lambda: len(stopped) > 1)

    asyncio.run(story())
    assert stopped == ["started", "stopped"]


def test_a_vllm_that_does_not_hear_is_waited_for_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm, "GRACE_SECONDS", 0.01)
    events: list[str] = []

    async def deaf(scope: Message, body: bytes, receive: Receive) -> tuple[int, bytes]:
        events.append("started")
        try:
            await asyncio.sleep(3600)
        finally:
            events.append("cancelled")
        raise AssertionError

    async def story() -> None:
        call = asyncio.create_task(engine(deaf).score([[1]]))
        await until(lambda: events == ["started"])
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(call, 60)
        await until(lambda: len(events) > 1)

    asyncio.run(story())
    assert events == ["started", "cancelled"]


def test_a_failure_after_the_caller_left_is_nobodys_concern() -> None:
    complaints: list[dict[str, Any]] = []

    async def handler(scope: Message, body: bytes, receive: Receive) -> tuple[int, bytes]:
        assert await receive() == {"type": "http.disconnect"}
        raise ZeroDivisionError

    async def story() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        call = asyncio.create_task(engine(handler).score([[1]]))
        await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        del call
        await asyncio.sleep(0.01)

    asyncio.run(story())
    assert complaints == []


def test_calls_at_once_keep_their_own_answers() -> None:
    async def handler(scope: Message, body: bytes, receive: Receive) -> tuple[int, bytes]:
        [[number]] = json.loads(body)["input"]
        await asyncio.sleep(0.001 * (7 - number % 7))
        return 200, answer(number / 100)

    async def story() -> list[list[float]]:
        asked = engine(handler)
        return await asyncio.gather(*(asked.score([[number]]) for number in range(50)))

    assert asyncio.run(story()) == [[number / 100] for number in range(50)]


@pytest.mark.parametrize(("status", "alive"), [(200, True), (503, False), (404, False)])
def test_it_is_alive_where_vllms_health_says_200(status: int, alive: bool) -> None:
    seen = []

    async def handler(scope: Message, body: bytes, receive: Receive) -> tuple[int, bytes]:
        seen.append((scope["method"], scope["path"], body))
        return status, b""

    assert asyncio.run(engine(handler).alive()) is alive
    assert seen == [("GET", "/health", b"")]


def test_a_health_that_fails_or_hangs_is_not_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm, "ALIVE_SECONDS", 0.01)
    monkeypatch.setattr(vllm, "GRACE_SECONDS", 0.01)

    async def failing(scope: Message, body: bytes, receive: Receive) -> tuple[int, bytes]:
        raise RuntimeError

    async def hanging(scope: Message, body: bytes, receive: Receive) -> tuple[int, bytes]:
        await asyncio.sleep(3600)
        raise AssertionError

    assert asyncio.run(engine(failing).alive()) is False
    assert asyncio.run(engine(hanging).alive()) is False


def test_its_prompts_are_lists_of_ids_that_it_can_score(tmp_path: Path) -> None:
    tiny_model.tokenizer_files(tmp_path)
    sent: list[list[int]] = []

    async def handler(scope: Message, body: bytes, receive: Receive) -> tuple[int, bytes]:
        sent.extend(json.loads(body)["input"])
        return 200, answer(0.5, 0.5)

    scored = engine(handler, PromptMaker.load(render_template(TEMPLATE.read_text(encoding="utf-8"), "i"), tmp_path, 512))
    prompts = scored.prompts("", SECRET, ["one", SECRET])
    assert asyncio.run(scored.score([prompts.prompt(index, 3) for index in range(2)])) == [0.5, 0.5]
    assert [len(ids) for ids in sent] == [prompts.shared + min(3, length) + prompts.tail for length in prompts.documents]
