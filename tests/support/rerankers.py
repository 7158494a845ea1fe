"""Stand-ins for rerank servers, in the shapes that each documents, which answer after a set time and keep their own account of it.

python tests/support/rerankers.py KIND [SECONDS] [WORKERS]: serves on a loopback port, which it prints. WORKERS calls are worked on at one time; 0 is any number.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

# What a server of each kind says of itself, and what it answers a rerank with. From their sources and references:
# vLLM 0.32 entrypoints; TEI router/src/http/server.rs; Infinity fastapi_schemas/pymodels.py; llama.cpp tools/server/README.md.
SAYS: dict[str, dict[str, Any]] = {
    "ours": {"/health": {"status": "healthy", "skipped": []}},
    "vllm": {"/health": None, "/version": {"version": "0.32.0"}, "/v1/models": {"object": "list", "data": [{"id": "m", "owned_by": "vllm"}]}},
    "tei": {
        "/health": None,
        "/info": {"model_id": "m", "model_type": {"reranker": {"id2label": {"0": "a"}, "label2id": {"a": 0}}}, "max_client_batch_size": 32},
    },
    "infinity": {
        "/health": {"unix": 1.0},
        "/models": {"object": "list", "data": [{"id": "m", "owned_by": "infinity", "backend": "torch", "stats": {}}]},
    },
    "llamacpp": {"/health": {"status": "ok"}, "/models": {"object": "list", "data": [{"id": "m", "owned_by": "llamacpp"}]}},
}
PATHS = {
    "ours": ["/v1/rerank"],
    "vllm": ["/v1/rerank", "/rerank"],
    "tei": ["/rerank"],
    "infinity": ["/rerank"],
    "llamacpp": ["/v1/rerank", "/rerank"],
}


def answer(kind: str, body: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
    """Status, headers and JSON of a rerank; 422 where the request is none of this kind's."""
    texts = body.get("texts" if kind == "tei" else "documents")
    if not isinstance(body.get("query"), str) or not isinstance(texts, list) or not texts:
        return 422, {}, {"error": "missing field", "error_type": "validation"}
    tokens = sum(len(text.split()) + 4 for text in texts)
    scores = [(place, 1 / (1 + place)) for place in range(len(texts))]
    if kind == "tei":
        if len(texts) > 32:
            return 413, {}, {"error": f"batch size {len(texts)} > maximum allowed batch size 32", "error_type": "Validation"}
        return 200, {"x-compute-tokens": str(tokens)}, [{"index": place, "score": score} for place, score in scores]
    results = [{"index": place, "relevance_score": score} for place, score in (reversed(scores) if kind == "llamacpp" else scores)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    said = {"x-rerank-documents": str(len(texts)), "x-rerank-scored": str(len(texts)), "x-rerank-cached": "0"} if kind == "ours" else {}
    return 200, said, {"model": "m", "object": "list", "usage": usage, "results": results}


@dataclass
class Account:
    """What a server saw: the moments of each rerank, received whole and answered, and what was asked."""

    received: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)
    queries: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    connections: int = 0


class Server(asyncio.Protocol):
    """HTTP/1.1, as little of it as a load needs."""

    def __init__(self, kind: str, seconds: float, gate: asyncio.Semaphore | None, account: Account) -> None:
        self.kind, self.seconds, self.gate, self.account = kind, seconds, gate, account
        self.data = b""
        account.connections += 1

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, found, rest = self.data.partition(b"\r\n\r\n")
        if not found:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        if len(rest) < int(headers.get("content-length", 0)):
            return
        self.data = b""
        method, path, _ = first.split(" ")
        if method == "GET":
            known = {**SAYS[self.kind], "/account": vars(self.account)}
            return self.write(200 if path in known else 404, {}, known.get(path))
        if path not in PATHS[self.kind]:
            return self.write(404, {}, {"detail": "Not Found"})
        body = json.loads(rest)
        self.account.received.append(time.time())
        self.account.queries.append(str(body.get("query")))
        self.account.headers.append(headers)
        status, said, found_json = answer(self.kind, body)
        if self.seconds or self.gate:
            self.later = asyncio.ensure_future(self.after(status, said, found_json))
        else:
            self.write(status, said, found_json, counted=True)

    async def after(self, status: int, said: dict[str, str], body: Any) -> None:
        async with self.gate or contextlib.nullcontext():
            await asyncio.sleep(self.seconds)
        self.write(status, said, body, counted=True)

    def write(self, status: int, said: dict[str, str], body: Any, counted: bool = False) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        more = "".join(f"{name}: {value}\r\n" for name, value in said.items())
        head = f"HTTP/1.1 {status} X\r\nconnection: keep-alive\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n{more}\r\n"
        if counted:
            self.account.answered.append(time.time())
        self.transport.write(head.encode() + data)


async def serve(kind: str, seconds: float, workers: int) -> None:
    account, gate = Account(), asyncio.Semaphore(workers) if workers else None
    server = await asyncio.get_running_loop().create_server(lambda: Server(kind, seconds, gate, account), "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@dataclass(frozen=True)
class Running:
    url: str

    def account(self) -> Account:
        with urlopen(f"{self.url}/account", timeout=10) as reply:
            return Account(**json.load(reply))


@contextlib.contextmanager
def running(kind: str, seconds: float = 0.0, workers: int = 0) -> Iterator[Running]:
    """A stand-in in a process of its own, so that what measures it does not share its interpreter."""
    argv = [sys.executable, str(Path(__file__)), kind, str(seconds), str(workers)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Running(f"http://127.0.0.1:{int(process.stdout.readline())}")
        finally:
            process.kill()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(sys.argv[1], float((sys.argv[2:] or ["0"])[0]), int((sys.argv[3:] or ["0"])[0])))
