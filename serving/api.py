"""The rerank API in vLLM's shapes: a request's body becomes a Call or an ApiError, scores become an answer. Nothing here waits or computes scores."""

import json
import re
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

RERANK_PATHS = ("/v1/rerank", "/rerank", "/v2/rerank")
SCORE_PATHS = ("/v1/score", "/score")
# vLLM's names for the two sides of a score request, in the order it tries them.
SCORE_FIELDS = (("queries", "documents"), ("queries", "items"), ("data_1", "data_2"), ("text_1", "text_2"))
DEADLINE_HEADER = "x-rerank-deadline-seconds"
DEADLINE_LIMIT_SECONDS = 3600.0
HEADER_CHARACTERS = 2000


class ApiError(Exception):
    """An answer other than 200, in vLLM's shape: status, its type, what went wrong, and the parameter it is about."""

    def __init__(
        self, status: int, kind: str, message: str, param: str | None = None, headers: Sequence[tuple[str, str]] = (), why: str = ""
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.message, self.param, self.headers, self.why = status, kind, message, param, tuple(headers), why

    @classmethod
    def of_field(cls, kind: str, field: str, message: str) -> "ApiError":
        """400 about a field of the request, or (field "") the request as a whole."""
        place = f"body.{field}" if field else "body"
        return cls(400, "Bad Request", f"1 validation error:\n  {{'type': '{kind}', 'loc': '{place}', 'msg': '{message}'}}", place)

    @classmethod
    def unavailable(cls, message: str, retry_after: int, why: str) -> "ApiError":
        """503 with the seconds after which a caller should ask again; `why` is a word for the metrics."""
        return cls(503, "ServiceUnavailableError", message, headers=[("retry-after", str(max(1, retry_after)))], why=why)

    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.status}}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request may have."""

    names: tuple[str, ...]  # the models served
    documents: int


@dataclass(frozen=True, kw_only=True)
class Call:
    """What to score: pairs of query and document, in the caller's order. `keep` limits the tokens of each document (None: the model's own limit)."""

    rerank: bool
    pairs: tuple[tuple[str, str], ...]
    instruction: str | None = None
    keep: int | None = None
    top_n: int = 0
    return_documents: bool = True


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A relevance score, the tokens of the document that it stands for, those the document has, and the prompt's tokens."""

    score: float
    kept: int
    length: int
    tokens: int

    @property
    def whole(self) -> bool:
        return self.kept >= self.length


def parse(path: str, content_type: str, raw: bytes, limits: Limits) -> Call:
    """The call in a request's body; ApiError 4xx where there is none, whatever the bytes."""
    if content_type.split(";")[0].strip().lower() != "application/json":
        raise ApiError(400, "Bad Request", "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed")
    try:
        request = json.loads(raw, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ApiError.of_field("json_invalid", "", "JSON decode error") from error
    if not isinstance(request, dict):
        raise ApiError.of_field("model_attributes_type", "", "Input should be a valid dictionary or object to extract fields from")
    model = request.get("model")
    if model is not None and not isinstance(model, str):
        raise ApiError.of_field("string_type", "model", "Input should be a valid string")
    call = _rerank(request, limits) if path in RERANK_PATHS else _score(request, limits)
    if model and model not in limits.names:
        raise ApiError(404, "NotFoundError", "The model does not exist; GET /v1/models lists the ones served.", "model")
    return call


def deadline(header: str | None, default: float) -> float:
    """Seconds that a call may take, from its header."""
    if header is None:
        return default
    seconds = float(header) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", header) else 0.0
    if not 0 < seconds <= DEADLINE_LIMIT_SECONDS:
        raise ApiError(400, "Bad Request", f"The header {DEADLINE_HEADER} must be a number of seconds above 0 and up to {DEADLINE_LIMIT_SECONDS:g}")
    return seconds


def rerank_answer(call: Call, scores: Sequence[float], tokens: int, model: str) -> dict[str, Any]:
    """vLLM's answer to a rerank: by score, best first, equal scores in the caller's order; all of them where top_n is 0."""
    order = sorted(range(len(scores)), key=lambda index: -scores[index])[: call.top_n or None]
    results: list[dict[str, Any]] = [{"index": index, "relevance_score": scores[index]} for index in order]
    if call.return_documents:
        for result in results:
            result["document"] = {"text": call.pairs[result["index"]][1], "multi_modal": None}
    return {"id": f"score-{uuid.uuid4().hex[:16]}", "model": model, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}, "results": results}


def score_answer(scores: Sequence[float], tokens: int, model: str) -> dict[str, Any]:
    """vLLM's answer to a score request: one score a pair, in the order of the request."""
    usage = {
        "prompt_tokens": tokens,
        "total_tokens": tokens,
        "completion_tokens": 0,
        "prompt_tokens_details": None,
        "completion_tokens_details": None,
    }
    return {
        "id": f"score-{uuid.uuid4().hex[:16]}",
        "object": "list",
        "created": int(time.time()),
        "model": model,
        "data": [{"index": index, "object": "score", "score": score} for index, score in enumerate(scores)],
        "usage": usage,
    }


def with_unscored(scored: dict[int, float], count: int) -> list[float]:
    """A score for each of `count` documents: those without one come below all that have one, in the caller's order, and not below 0."""
    missing = [index for index in range(count) if index not in scored]
    lowest = min(scored.values(), default=0.0)
    below = {index: lowest * (1 - (place + 1) / (len(missing) + 1)) for place, index in enumerate(missing)}
    return [scored[index] if index in scored else below[index] for index in range(count)]


def ranges(indexes: Sequence[int]) -> str:
    """Sorted numbers as HTTP writes byte ranges: '3,26-65'. What no header should hold ends in '...'."""
    parts: list[list[int]] = []
    for index in indexes:
        if parts and parts[-1][-1] == index - 1:
            parts[-1][1:] = [index]
        else:
            parts.append([index])
    text = ",".join("-".join(map(str, part)) for part in parts)
    return text if len(text) <= HEADER_CHARACTERS else text[:HEADER_CHARACTERS].rpartition(",")[0] + ",..."


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)


def _rerank(request: dict[str, Any], limits: Limits) -> Call:
    if isinstance(request.get("query"), list):
        raise ApiError.of_field("string_type", "query", "Input should be a valid string")
    query = _texts(request, "query")[0]
    documents = _texts(request, "documents")
    _count(documents, limits)
    given = request.get("return_documents")
    return Call(
        rerank=True,
        pairs=tuple((query, document) for document in documents),
        instruction=_instruction(request),
        keep=_keep(request),
        top_n=_whole(request, "top_n", 0) or 0,
        # Xinference's client sends a string.
        return_documents=str(given).lower() not in ("false", "0"),
    )


def _score(request: dict[str, Any], limits: Limits) -> Call:
    fields = next((pair for pair in SCORE_FIELDS if all(name in request for name in pair)), None)
    if fields is None:
        raise ApiError.of_field("missing", "queries", "Field required")
    left, right = (_texts(request, name) for name in fields)
    if len(left) > 1 and len(left) != len(right):
        raise ApiError(400, "BadRequestError", "Input lengths must be either 1:1, 1:N or N:N")
    if not left:
        raise ApiError(400, "BadRequestError", "At least one text element must be given")
    _count(right, limits)
    queries = left * len(right) if len(left) == 1 else left
    return Call(rerank=False, pairs=tuple(zip(queries, right, strict=True)), instruction=_instruction(request), keep=_keep(request))


def _texts(request: dict[str, Any], name: str) -> list[str]:
    if name not in request:
        raise ApiError.of_field("missing", name, "Field required")
    value = request[name]
    texts = [item["text"] if isinstance(item, dict) and "text" in item else item for item in (value if isinstance(value, list) else [value])]
    for text in texts:
        if not isinstance(text, str):
            raise ApiError.of_field("string_type", name, "Input should be a valid string")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ApiError.of_field("string_unicode", name, "Input should be text without lone surrogates") from error
    return texts


def _count(documents: list[str], limits: Limits) -> None:
    if len(documents) > limits.documents:
        raise ApiError(413, "Request Entity Too Large", f"The request has {len(documents)} documents and may have {limits.documents}", "documents")


def _whole(request: dict[str, Any], name: str, least: int) -> int | None:
    value = request.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise ApiError.of_field("int_type", name, "Input should be a valid integer")
    if value < least:
        raise ApiError.of_field("greater_than_equal", name, f"Input should be greater than or equal to {least}")
    return value


def _keep(request: dict[str, Any]) -> int | None:
    # vLLM cuts the finished prompt with the second, template and all; here both cut the document.
    given = [_whole(request, "max_tokens_per_doc", 0), _whole(request, "truncate_prompt_tokens", -1)]
    return min((value for value in given if value is not None and value > 0), default=None)


def _instruction(request: dict[str, Any]) -> str | None:
    kwargs = request.get("chat_template_kwargs")
    if kwargs is not None and not isinstance(kwargs, dict):
        raise ApiError.of_field("dict_type", "chat_template_kwargs", "Input should be a valid dictionary")
    value = request.get("instruction")
    if value is None and kwargs:
        value = kwargs.get("instruction")
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise ApiError.of_field("string_type", "instruction", "Input should be a valid string")
    return _texts({"instruction": value}, "instruction")[0]
