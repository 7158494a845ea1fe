"""A stand-in for an embedding model (ASGI), in OpenAI's shape: texts that share words have vectors that are near."""

import json
import math
import re
import zlib

from serving.asgi import Message, Receive, Send

DIMENSIONS = 512  # one of the sizes that RAGFlow's index knows


def vector(text: str) -> list[float]:
    """Its words, each counted at a place of its own, at length 1."""
    counts = [0.0] * DIMENSIONS
    for word in re.findall(r"\w+", text.casefold()) or [""]:
        counts[zlib.crc32(word.encode()) % DIMENSIONS] += 1.0
    length = math.hypot(*counts)
    return [count / length for count in counts]


async def app(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        for moment in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{moment}.complete"})
        return
    texts = json.loads(await body_of(receive) or b"{}").get("input", [])
    texts = [texts] if isinstance(texts, str) else texts
    rows = [{"object": "embedding", "index": index, "embedding": vector(text)} for index, text in enumerate(texts)]
    words = sum(len(text.split()) for text in texts) or 1
    answer = {"object": "list", "model": "words", "data": rows, "usage": {"prompt_tokens": words, "total_tokens": words}}
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


async def body_of(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)
