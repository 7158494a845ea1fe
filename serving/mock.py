"""`mock`: the guard around an engine without a model, for tests and demos.

Scores reward words that query and document share. All else is the guard's, so that the mock has the real service's contract.
"""

import argparse
import asyncio
import dataclasses
import itertools
import json
import os
import re
import signal
import sys
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from serving import keys
from serving import options as guard_options
from serving.asgi import App, Message, Receive, Send
from serving.guard import Guard
from serving.http_server import Server
from serving.options import GuardOptions

VERSION = "0.32.0+mock"
TOKENS_PER_PASS = 4096
# What the guard is told of the mock's speed, as if one second of work had shown it: else a stall of a busy machine would cut documents.
TOKENS_PER_SECOND = 1_000_000
STOP_SECONDS = 10.0

# -- the engine ------------------------------------------------------------------------------------------------------------------------------------

# Scripts written without spaces: Chinese, Japanese, Korean.
SCRIPT = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
PIECE = re.compile(rf"[{SCRIPT}]+|[^\W{SCRIPT}]+")
WITHOUT_SPACES = re.compile(f"[{SCRIPT}]")


def terms(text: str) -> Iterator[str]:
    """The words of `text`, in order, letter case and width ignored; of scripts without spaces each character and each pair of neighbours."""
    for found in PIECE.finditer(unicodedata.normalize("NFKC", text).casefold()):
        piece = found[0]
        if WITHOUT_SPACES.match(piece):
            yield from piece
            yield from (piece[at : at + 2] for at in range(len(piece) - 1))
        else:
            yield piece


def score(query: Iterable[str], document: Iterable[str]) -> float:
    """Of terms, in [0, 1]: the share of the query's that the document has, and a tenth for the share of the document's that the query asks for."""
    asked, given = set(query), set(document)
    if not asked or not given:
        return 0.0
    common = len(asked & given)
    return 0.9 * common / len(asked) + 0.1 * common / len(given)


@dataclass(frozen=True, kw_only=True)
class MockPrompts:
    """Terms stand for tokens (engine.Prompts)."""

    asked: Sequence[str]
    given: Sequence[Sequence[str]]
    shared: int
    tail: int = 0

    @property
    def query(self) -> int:
        return len(self.asked)

    @property
    def documents(self) -> Sequence[int]:
        return [len(terms) for terms in self.given]

    def prompt(self, index: int, keep: int) -> object:
        return self.asked, self.given[index][:keep]


class MockEngine:
    """Scores by the words that query and document share (engine.Engine)."""

    def __init__(self, max_model_len: int) -> None:
        self.max_model_len = max_model_len

    def prompts(self, instruction: str, query: str, documents: Sequence[str]) -> MockPrompts:
        asked = self._terms(query)
        return MockPrompts(asked=asked, given=[self._terms(document) for document in documents], shared=len(self._terms(instruction)) + len(asked))

    def _terms(self, text: str) -> list[str]:
        return list(itertools.islice(terms(text), self.max_model_len + 1))

    async def score(self, prompts: Sequence[object]) -> list[float]:
        await asyncio.sleep(0)  # other calls have their turn
        return [score(*cast(tuple[Sequence[str], Sequence[str]], prompt)) for prompt in prompts]

    async def alive(self) -> bool:
        return True


# -- what vLLM's own server answers -------------------------------------------------------------------------------------------------------------


class Inner:
    """The app inside the guard: vLLM's lists of models and metrics, and its version (ASGI)."""

    def __init__(self, names: tuple[str, ...], max_model_len: int) -> None:
        self.names, self.max_model_len, self.created = names, max_model_len, int(time.time())
        self.counts: dict[str, int] = {}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"]
        self.counts[path] = self.counts.get(path, 0) + 1
        if path == "/metrics":
            kind, body = "text/plain; version=0.0.4; charset=utf-8", self.metrics()
        else:
            kind, body = "application/json", json.dumps(self.models() if path == "/v1/models" else {"version": VERSION})
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind.encode())]})
        await send({"type": "http.response.body", "body": body.encode()})

    def metrics(self) -> str:
        lines = ["# HELP http_requests_total Total number of requests by method, status and handler.", "# TYPE http_requests_total counter"]
        lines += [f'http_requests_total{{handler="{path}",method="GET",status="2xx"}} {count:.1f}' for path, count in sorted(self.counts.items())]
        return "\n".join(lines) + "\n"

    def models(self) -> dict[str, Any]:
        permission = {
            "object": "model_permission",
            "created": self.created,
            "allow_create_engine": False,
            "allow_sampling": True,
            "allow_logprobs": True,
            "allow_search_indices": False,
            "allow_view": True,
            "allow_fine_tuning": False,
            "organization": "*",
            "group": None,
            "is_blocking": False,
        }
        model = {"object": "model", "created": self.created, "owned_by": "vllm", "root": "mock", "parent": None, "max_model_len": self.max_model_len}
        return {
            "object": "list",
            "data": [
                {"id": name, **model, "permission": [{"id": f"modelperm-{number:016x}", **permission}]} for number, name in enumerate(self.names)
            ],
        }


# -- the command -------------------------------------------------------------------------------------------------------------------------------------


def build(options: GuardOptions) -> Guard:
    """The guard around the mock's engine; keys.BadKeys where its key file cannot be used."""
    # Shared words reach no band of a model's, whose name the mock may bear.
    options = dataclasses.replace(options, golden=False)
    guard = Guard(Inner(options.served_model_names, options.max_model_len), options, MockEngine(options.max_model_len))
    guard.scheduler.speed.learn(TOKENS_PER_SECOND, 1.0)
    return guard


async def serve(app: App, host: str, port: int, *, stop: asyncio.Event, ready: Callable[[tuple[str, int]], None]) -> int:
    """Serves until `stop` is set, and says where as soon as it listens; returns how many running answers were given up after 10 s. OSError."""
    server = Server(app)
    ready(await server.listen(host, port))
    if isinstance(app, Guard):
        app.start()
    await stop.wait()
    return await server.stop(STOP_SECONDS)


def run(options: GuardOptions, host: str, port: int) -> int:
    """Serves until SIGTERM or SIGINT; running answers get 10 s to end. Status 1 and one sentence where key file or port cannot be used."""

    def ready(address: tuple[str, int]) -> None:
        print(json.dumps({"mock": options.served_model_names, "listening": "{}:{}".format(*address), "key": bool(guard.keys)}), flush=True)

    async def until_stopped() -> int:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        return await serve(guard, host, port, stop=stop, ready=ready)

    try:
        guard = build(options)
        given_up = asyncio.run(until_stopped())
    except keys.BadKeys as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        print(f"The mock cannot listen on {host}:{port} ({reason}); the port must be free: stop what uses it.", file=sys.stderr)
        return 1
    print(json.dumps({"mock": "stopped", "running": given_up}), flush=True)
    return 0


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="serving mock", allow_abbrev=False)
    guard_options.add_arguments(parser)
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on, for use outside a container")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on, 0 for a free one, for use outside a container")
    given = parser.parse_args(argv)
    return run(guard_options.from_arguments(given, model="", tokens_per_pass=TOKENS_PER_PASS), given.host, given.port)
