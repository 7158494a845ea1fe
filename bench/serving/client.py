"""Calls over one kept connection, timed from the first byte sent to the last one read."""

import http.client
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.serving.measures import counters

FRESH = {"Cache-Control": "no-cache"}
ENDLESS = {"X-Rerank-Deadline-Seconds": "3600"}
LIMIT_SECONDS = 1800.0


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """One connection to 127.0.0.1:`port`. A timeout is an OSError, as is a connection that ends."""

    def __init__(self, port: int, seconds: float = LIMIT_SECONDS) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)

    def ask(self, path: str, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None) -> Answer:
        data = None if body is None else json.dumps(body).encode()
        began = time.perf_counter()
        try:
            self.connection.request("GET" if data is None else "POST", path, data, {"Content-Type": "application/json", **(headers or {})})
            answer = self.connection.getresponse()
            read = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.connection.close()
            raise OSError(f"no answer from {path} after {time.perf_counter() - began:.1f} s: {error!r}") from error
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, read, time.perf_counter() - began)

    def rerank(self, query: str, documents: Sequence[str], headers: Mapping[str, str] | None = None, **more: Any) -> Answer:
        return self.ask("/v1/rerank", {"query": query, "documents": list(documents), **more}, headers)

    def counters(self) -> dict[str, float]:
        return counters(self.ask("/metrics").body.decode())

    def close(self) -> None:
        self.connection.close()
