"""The engine in production: vLLM's own app, called inside its process with token ids, so that vLLM never sees a text."""

import asyncio
import json
import math
from collections.abc import Sequence

from serving.asgi import App, Message
from serving.engines.prompt import PromptMaker, TokenPrompts
from serving.rank.engine import EngineError
from serving.wording import about

GRACE_SECONDS = 2.0  # for vLLM to take note of a cancelled call; it needs a few turns of the event loop
ALIVE_SECONDS = 5.0


class VllmEngine:
    """Scores prompts by POST /classify to `app`, the ASGI app that the middleware wraps (engine.Engine)."""

    def __init__(self, app: App, maker: PromptMaker, model: str) -> None:
        """`app` puts vLLM's FastAPI object into the scope (scope["app"] of whatever reached the middleware). `model` is a served name."""
        self._app, self._maker, self._model = app, maker, model

    def prompts(self, instruction: str, query: str, documents: Sequence[str]) -> TokenPrompts:
        return self._maker.prompts(instruction, query, documents)

    def shortened(self, query: str, tokens: int) -> str:
        return self._maker.shortened(query, tokens)

    async def score(self, prompts: Sequence[object]) -> list[float]:
        if not prompts:
            return []
        body = json.dumps({"model": self._model, "input": prompts}, separators=(",", ":")).encode()
        status, answer = await self._call("POST", "/classify", body)
        if status != 200:
            raise EngineError(f"vLLM answered {status} to a batch of {about(len(prompts))} prompts.")
        return read_scores(answer, len(prompts))

    async def alive(self) -> bool:
        try:
            status, _ = await asyncio.wait_for(self._call("GET", "/health", b""), ALIVE_SECONDS)
        except (EngineError, asyncio.TimeoutError):
            return False
        return status == 200

    async def _call(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer. Where the caller is cancelled, vLLM is told what it hears when a client hangs up: that alone stops the work."""
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"reranker"), (b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())],
            "client": ("127.0.0.1", 0),
            "server": ("127.0.0.1", 0),
            "state": {},
        }
        hung_up = asyncio.Event()
        unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        status, parts = 0, list[bytes]()

        async def receive() -> Message:
            if unread:
                return unread.pop()
            await hung_up.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                parts.append(message.get("body", b""))

        work = asyncio.ensure_future(self._app(scope, receive, send))
        try:
            await asyncio.wait({work})
        finally:
            if not work.done():
                hung_up.set()
                try:
                    await asyncio.wait({work}, timeout=GRACE_SECONDS)
                finally:
                    work.cancel()
                    work.add_done_callback(_forget)
        if work.cancelled():
            raise EngineError("vLLM gave up a call that nobody had cancelled.")
        if (error := work.exception()) is not None:
            raise EngineError(f"vLLM failed with {type(error).__name__}.")  # its text may have the user's
        return status, b"".join(parts)


def read_scores(answer: bytes, count: int) -> list[float]:
    """Scores of an answer of vLLM's /classify: {"data": [{"index": 0, "probs": [score]}, …]}. EngineError where it is not that."""
    try:
        found = {item["index"]: item["probs"] for item in json.loads(answer)["data"]}
    except (ValueError, KeyError, TypeError, RecursionError):
        found = {}
    if len(found) != count or not all(_is_score(found.get(index)) for index in range(count)):
        raise EngineError(f"vLLM's answer does not have {about(count)} scores from 0 to 1.")
    return [float(found[index][0]) for index in range(count)]


def _is_score(probs: object) -> bool:
    if not isinstance(probs, list) or len(probs) != 1:
        return False
    (score,) = probs
    return isinstance(score, int | float) and not isinstance(score, bool) and math.isfinite(score) and 0 <= score <= 1


def _forget(work: asyncio.Future[None]) -> None:
    """Takes note of an exception that nobody is left to hear, so that asyncio does not log it."""
    if not work.cancelled():
        work.exception()
