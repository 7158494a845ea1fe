"""Time that passes only when everything waits, and an engine of known speed in it: deadlines are tested to the millisecond, in no time."""

import asyncio
import json
import selectors
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from serving.rank.engine import EngineError, NoEngine
from serving.web.service import Service
from tests.support.options import service_options

Result = TypeVar("Result")


class _Jumping(selectors.DefaultSelector):
    """Instead of waiting, time goes on."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("everything waits and no timer is set: a hang")
        self.now += max(0.0, timeout)
        return super().select(0)


class Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.jumping = _Jumping()
        super().__init__(self.jumping)

    def time(self) -> float:
        # A timer that is due within the clock's resolution counts as due.
        return self.jumping.now


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """`work`'s result in virtual time; a hang is an AssertionError."""
    loop = Loop()
    try:
        return loop.run_until_complete(work)
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
            loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        loop.close()


class Inline(Executor):
    """Runs at once what it is given."""

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        try:
            future.set_result(work(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


@dataclass(frozen=True)
class Prompt:
    query: str
    document: tuple[str, ...]  # the words kept
    tokens: int


@dataclass(frozen=True)
class Prompts:
    """A word is a token."""

    query_text: str
    texts: tuple[tuple[str, ...], ...]
    shared: int = 50
    tail: int = 10

    @property
    def query(self) -> int:
        return len(self.query_text.split())

    @property
    def documents(self) -> tuple[int, ...]:
        return tuple(len(text) for text in self.texts)

    def prompt(self, index: int, keep: int) -> Prompt:
        words = self.texts[index][:keep]
        return Prompt(query=self.query_text, document=words, tokens=self.shared + len(words) + self.tail)


def score(query: str, words: Sequence[str]) -> float:
    """The share of words that are the query's; documents that begin with a number n and no such word score 0.n."""
    asked = set(query.split())
    return sum(word in asked for word in words) / (len(words) or 1)


@dataclass
class Engine:
    """Computes `speed` tokens a second, one piece after the other. `jitter` multiplies the time of each piece in turn."""

    speed: float
    jitter: Sequence[float] = (1.0,)
    fails: bool = False
    dead: bool = False
    frozen: bool = False
    scored: list[Prompt] = field(default_factory=list)
    aborted: int = 0
    free_at: float = 0.0
    pieces: int = 0

    def prompts(self, instruction: str, query: str, documents: Sequence[str]) -> Prompts:
        return Prompts(query_text=query, texts=tuple(tuple(document.split()) for document in documents))

    def shortened(self, query: str, tokens: int) -> str:
        words = query.split()
        return " ".join([*words[: tokens - tokens // 2], *words[len(words) - tokens // 2 :]])

    async def score(self, prompts: Sequence[Any]) -> list[float]:
        loop = asyncio.get_running_loop()
        if self.fails:
            await asyncio.sleep(0.01)
            raise EngineError("The engine answered 500.")
        tokens = sum(prompt.tokens - 50 for prompt in prompts)
        start = max(loop.time(), self.free_at)
        self.free_at = start + tokens / self.speed * self.jitter[self.pieces % len(self.jitter)]
        self.pieces += 1
        try:
            if self.frozen:
                await asyncio.sleep(1e6)
            await asyncio.sleep(self.free_at - loop.time())
        except asyncio.CancelledError:
            self.aborted += len(prompts)
            raise
        self.scored += prompts
        return [score(prompt.query, prompt.document) for prompt in prompts]

    async def alive(self) -> bool:
        return not self.dead


class PassEngine(Engine):
    """Computes in passes as vLLM does: each takes as long as a full one, holds what has arrived when it begins, and is followed by the next at once.

    What is aborted is in no later pass.
    """

    def __init__(self, speed: float, tokens_per_pass: int) -> None:
        super().__init__(speed)
        self.tokens_per_pass, self.passes = tokens_per_pass, 0
        self.waiting: list[tuple[int, asyncio.Future[None]]] = []
        self.running: asyncio.Task[None] | None = None

    async def score(self, prompts: Sequence[Any]) -> list[float]:
        ends: list[asyncio.Future[None]] = [asyncio.get_running_loop().create_future() for _ in prompts]
        self.waiting += [(prompt.tokens - 50, end) for prompt, end in zip(prompts, ends, strict=True)]
        if self.running is None or self.running.done():
            self.running = asyncio.ensure_future(self._run())
        await asyncio.gather(*ends)
        self.scored += prompts
        return [score(prompt.query, prompt.document) for prompt in prompts]

    async def _run(self) -> None:
        while self.waiting:
            room, done = self.tokens_per_pass, 0
            self.waiting = [(tokens, end) for tokens, end in self.waiting if not end.done()]
            while done < len(self.waiting) and self.waiting[done][0] <= room:
                room -= self.waiting[done][0]
                done += 1
            if done < len(self.waiting):
                self.waiting[done] = (self.waiting[done][0] - room, self.waiting[done][1])
            ended, self.waiting = self.waiting[:done], self.waiting[done:]
            self.passes += 1
            await asyncio.sleep(self.tokens_per_pass / self.speed)
            for _, end in ended:
                if not end.done():
                    end.set_result(None)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float  # of the loop's time

    def json(self) -> Any:
        return json.loads(self.body)


async def inner(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """A server inside the service that knows every path."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"inner " + scope["path"].encode() + b"\n"})


async def ask(
    app: Any, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, *, hang_up_after: float | None = None
) -> Answer | None:
    """One request to an ASGI app; None where the client hung up before the answer. A body that is not bytes is sent as JSON."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    given = {"content-type": "application/json", "content-length": str(len(data)), **(headers or {})}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in given.items()],
    }
    sent: list[dict[str, Any]] = []
    done = asyncio.Event()
    asked = False

    async def receive() -> dict[str, Any]:
        nonlocal asked
        if not asked:
            asked = True
            return {"type": "http.request", "body": data, "more_body": False}
        if hang_up_after is None:
            await done.wait()
        else:
            await asyncio.sleep(max(0.0, begun + hang_up_after - loop.time()))
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    try:
        await app(scope, receive, send)
    finally:
        done.set()
    if not sent:
        return None
    return Answer(
        status=sent[0]["status"],
        headers={name.decode(): value.decode("latin-1") for name, value in sent[0]["headers"]},
        body=b"".join(message.get("body", b"") for message in sent[1:]),
        seconds=loop.time() - begun,
    )


def service(engine: Engine | NoEngine, **changes: Any) -> Service:
    """A service that has proven its engine, unless `proven=False`; the other changes are of its options."""
    proven = changes.pop("proven", True)
    clock = asyncio.get_running_loop().time
    made = Service(inner, service_options(**changes), lambda _: engine, threads=Inline(), clock=clock)
    if proven:
        made.vitals.proven, made.vitals.reason = True, ""
        assert isinstance(engine, Engine)
        made.scheduler.speed.learn(int(10 * engine.speed), 10)
    return made


async def rerank(app: Service, body: Any = None, **more: Any) -> Answer:
    """The answer to a rerank call, by default a short one; `more` as for `ask`."""
    answer = await ask(app, "POST", "/v1/rerank", {"query": "cats", "documents": ["dogs bark", "cats purr"]} if body is None else body, **more)
    assert answer is not None
    return answer


def story(told: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """A test that is told in virtual time."""

    def test() -> None:
        run(told())

    test.__name__, test.__doc__ = told.__name__, told.__doc__
    return test
