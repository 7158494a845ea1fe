"""ASGI middleware that vLLM loads with --middleware where there is an API key: vLLM's own --api-key leaves /rerank, /score and others open."""

import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from serving import keys

KEY_FILE_VARIABLE = "RERANKER_API_KEY_FILE"
OPEN_PATHS = ("/health",)
REFUSAL = json.dumps({"error": "Unauthorized"}).encode()  # vLLM's own words

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class KeyGuard:
    """Lets a request through to `app` where it has a key of the file that RERANKER_API_KEY_FILE names, or asks for /health; else answers 401."""

    def __init__(self, app: Callable[[Message, Receive, Send], Awaitable[None]]) -> None:
        self.app = app
        self.keys = keys.read(Path(os.environ[KEY_FILE_VARIABLE]))

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or scope["path"] in OPEN_PATHS:
            await self.app(scope, receive, send)
            return
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) == 1 and keys.admits(given[0], self.keys):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(REFUSAL)).encode()), (b"www-authenticate", b"Bearer")]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": REFUSAL})
