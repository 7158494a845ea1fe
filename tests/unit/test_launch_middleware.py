"""The service inside vLLM's process, around a stand-in for vLLM's own server."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from serving.asgi import Message, Receive, Send
from serving.launch.middleware import Middleware
from serving.options import VARIABLE, hand_over
from tests.support import tiny_model
from tests.support.options import service_options
from tests.support.virtual import Answer, ask

OWNER = object()


class Vllm:
    """Answers /classify as vLLM does, with the share of "the" among a prompt's last tokens for a score; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Message, Any]] = []

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        body = (await receive())["body"]
        self.asked.append((scope, json.loads(body) if body else None))
        answer: Any = {"status": "well"}
        if scope["path"] == "/classify":
            prompts = json.loads(body)["input"]
            answer = {"data": [{"index": index, "probs": [len(set(ids)) % 97 / 97]} for index, ids in enumerate(prompts)]}
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


def called(vllm: Vllm, *asked: tuple[str, str, Any]) -> list[Answer]:
    """What the middleware around `vllm` answers, in vLLM's process: its scope names the server it belongs to."""

    async def told() -> list[Answer]:
        app = Middleware(vllm)

        async def inside(scope: Message, receive: Receive, send: Send) -> None:
            await app({**scope, "app": OWNER}, receive, send)

        return [answer for method, path, body in asked if (answer := await ask(inside, method, path, body)) is not None]

    return asyncio.run(told())


CALL = ("POST", "/v1/rerank", {"query": "What is the capital of China?", "documents": ["The capital of China is Beijing.", "Apples are red."]})


def test_its_options_come_from_the_environment_and_vllm_gets_token_ids_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_model.tokenizer_files(tmp_path)
    environment: dict[str, str] = {}
    hand_over(service_options(model=str(tmp_path), served_model_names=("tiny", "/models/tiny"), max_model_len=512), environment)
    monkeypatch.setenv(VARIABLE, environment[VARIABLE])
    vllm = Vllm()
    answer, metrics = called(vllm, CALL, ("GET", "/version", None))
    assert (answer.status, metrics.status) == (200, 200)
    assert (answer.json()["model"], answer.headers["x-rerank-scored"]) == ("tiny", "2")
    classified = [(scope, body) for scope, body in vllm.asked if scope["path"] == "/classify"]
    assert classified
    for scope, body in classified:
        assert scope["app"] is OWNER
        assert body["model"] == "tiny"
        assert all(isinstance(number, int) for ids in body["input"] for number in ids)
    assert [scope["path"] for scope, _ in vllm.asked if scope["path"] != "/classify"] == ["/version"]


@pytest.mark.parametrize("broken", ["no tokenizer", "a template without its mark"])
def test_where_no_prompts_can_be_made_it_serves_all_the_same_and_health_says_why(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if broken != "no tokenizer":
        tiny_model.tokenizer_files(tmp_path)
        template = tmp_path / "changed.jinja"
        template.write_text("{{ messages }}", encoding="utf-8")
        monkeypatch.setattr("serving.launch.middleware.TEMPLATE", template)
    environment: dict[str, str] = {}
    hand_over(service_options(model=str(tmp_path)), environment)
    monkeypatch.setenv(VARIABLE, environment[VARIABLE])
    answer, health = called(Vllm(), CALL, ("GET", "/health", None))
    assert (answer.status, health.status) == (503, 503)
    why = "tokenizer.json must be a tokenizer" if broken == "no tokenizer" else "The score template must have"
    assert why in answer.json()["error"]["message"]


def test_a_process_that_was_told_nothing_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(KeyError, match=VARIABLE):
        Middleware(Vllm())
