"""An independent load generator to hold `rerank bench` against: asyncio's streams, one connection for each caller, nothing of rerank/."""

import asyncio
import json
import sys
import time
from urllib.parse import urlsplit


async def closed(url: str, path: str, body: bytes, callers: int, calls: int) -> tuple[float, list[float]]:
    """Seconds in all, and those of each call: `callers` at once, each sends its next when it has its answer."""
    host, port = urlsplit(url).hostname, urlsplit(url).port
    request = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    left, took = iter(range(calls)), []

    async def caller() -> None:
        reader, writer = await asyncio.open_connection(host, port)
        while next(left, None) is not None:
            began = time.perf_counter()
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            await reader.readexactly(int(head.partition("content-length: ")[2].split("\r\n")[0]))
            took.append(time.perf_counter() - began)
            assert head.startswith("http/1.1 200")
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return time.perf_counter() - began, took


if __name__ == "__main__":
    url, path, callers, calls = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    seconds, took = asyncio.run(closed(url, path, sys.stdin.buffer.read(), callers, calls))
    print(json.dumps({"calls_per_second": calls / seconds, "p50": sorted(took)[len(took) // 2]}))
