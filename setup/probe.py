"""What a call to the reranker meets from where this runs, reported as one line of JSON and judged elsewhere (setup/verify.py).

Read by `python3 -` from its standard input, in RAGFlow's containers, with a call of `main` behind it: so nothing need be installed there, and the key is in no argv.
Any Python from 3.7 on, its standard library only.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

# As RAGFlow's VLLM factory asks since v0.25.3; the second document answers the query.
SECONDS = 30
QUERY = "the capital of France"
DOCUMENTS = ["Bananas are yellow", "Paris is the capital of France"]
LOOK_SECONDS = 10
ANSWER_BYTES = 1 << 20
TOLD_CHARACTERS = 2000


def main(job: str) -> None:
    """`job` (JSON): url, model, key; `environment`: proxy variables that stand for this process's own; `direct`: calls go to no proxy, whatever those say."""
    given = json.loads(job)
    if given.get("environment") is not None:
        for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
            del os.environ[name]
        os.environ.update(given["environment"])
    print(json.dumps(report(given["url"], given["model"], given["key"], given["direct"])))


def report(url: str, model: str, key: str, direct: bool) -> dict[str, Any]:
    """Which proxy the call would be sent to, whether the name resolves, and what the list of models, a rerank and the metrics answer; it ends where nothing answers."""
    parts = urlsplit(url)
    seen: dict[str, Any] = {"proxy": proxy(url), "no_proxy": urllib.request.getproxies_environment().get("no", "")}
    if direct or not seen["proxy"]:
        try:
            found = socket.getaddrinfo(parts.hostname, parts.port or 80, proto=socket.IPPROTO_TCP)
        except (OSError, UnicodeError) as error:
            return {**seen, "unresolved": getattr(error, "strerror", None) or str(error)}
        seen["addresses"] = sorted({str(item[4][0]) for item in found})
    seen["models"] = ask(f"{url}/models", key, direct, LOOK_SECONDS)
    if not seen["models"]["status"]:
        return seen
    seen["rerank"] = ask(f"{url}/rerank", key, direct, SECONDS, body(model))
    root = url[: -len("/v1")] if url.endswith("/v1") else url
    told = ask(f"{root}/metrics", key, direct, LOOK_SECONDS, told=ANSWER_BYTES)
    speed = re.search(r"^reranker_tokens_per_second ([0-9.e+-]+)$", told["text"], re.MULTILINE)
    seen["tokens_per_second"] = float(speed.group(1)) if speed and told["status"] == 200 else 0.0
    return seen


def body(model: str) -> dict[str, Any]:
    """The request of RAGFlow's VLLM factory."""
    return {"model": model, "query": QUERY, "documents": DOCUMENTS, "top_n": len(DOCUMENTS), "return_documents": False}


def ask(url: str, key: str, direct: bool, seconds: float, sent: dict[str, Any] | None = None, told: int = TOLD_CHARACTERS) -> dict[str, Any]:
    """Status, text (its first `told` characters) and time of an answer; status 0 and why where there was none."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", "Accept": "*/*"}
    request = urllib.request.Request(url, None if sent is None else json.dumps(sent).encode(), headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({})) if direct else urllib.request.build_opener()
    begun = time.monotonic()
    try:
        try:
            answer = opener.open(request, timeout=seconds)
        except urllib.error.HTTPError as refusal:
            answer = refusal
        with answer:
            status, text = answer.getcode(), answer.read(ANSWER_BYTES).decode("utf-8", "replace")
            unhealthy = answer.headers.get("X-Rerank-Unhealthy", "")
    except Exception as error:  # whatever a broken network or a strange server brings about is the answer here
        reason = getattr(error, "reason", error)
        why = f"no answer within {seconds} s" if isinstance(reason, TimeoutError) or "timed out" in str(reason) else ""
        return {"status": 0, "text": "", "failure": why or getattr(reason, "strerror", None) or str(reason) or type(reason).__name__}
    return {"status": status, "text": text[:told], "failure": "", "unhealthy": unhealthy, "seconds": round(time.monotonic() - begun, 3)}


def proxy(url: str) -> list[str]:
    """Variable and address (without its password) of the proxy that RAGFlow's client, httpx, would send the call to; [] where it goes straight."""
    found = urllib.request.getproxies_environment()
    parts = urlsplit(url)
    scheme = next((name for name in (parts.scheme, "all") if found.get(name)), "")
    if not scheme or _excepted(parts.hostname or "", parts.port, found.get("no", "")):
        return []
    spelled = [name for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper()) if os.environ.get(name)]
    return [spelled[0] if spelled else f"{scheme}_proxy", re.sub(r"//[^/@]*@", "//", found[scheme])]


def _excepted(host: str, port: int | None, no_proxy: str) -> bool:
    """As httpx reads it: a name stands for itself and what is below it, one with a dot in front only for what is below; no ranges of addresses."""
    for entry in (item.strip().lower() for item in no_proxy.split(",")):
        name, _, only = entry.partition("://")[2].partition(":") if "://" in entry else entry.partition(":")
        if entry == "*":
            return True
        if only and only != str(port):
            continue
        if name and (host == name or ("://" not in entry and host.endswith(name if name.startswith(".") else f".{name}"))):
            return True
    return False
