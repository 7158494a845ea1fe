"""The rerank API in vLLM's shapes: a request's body becomes a Call or an ApiError, whatever the bytes. Nothing here waits."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from serving.rank.call import Call
from serving.rank.unscored import WAYS
from serving.web import pieces
from serving.web.errors import ApiError
from serving.wording import about

RERANK_PATHS = ("/v1/rerank", "/rerank", "/v2/rerank")
SCORE_PATHS = ("/v1/score", "/score")
# vLLM's names for the two sides of a score request, in the order it tries them.
SCORE_FIELDS = (("queries", "documents"), ("queries", "items"), ("data_1", "data_2"), ("text_1", "text_2"))
DEADLINE_HEADER = "x-rerank-deadline-seconds"
DEADLINE_LIMIT_SECONDS = 3600.0
UNSCORED_HEADER = "x-rerank-unscored-as"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request may have."""

    names: tuple[str, ...]  # the models served
    documents: int


def route(path: str, method: str) -> str:
    """The route that a path stands for. RAGFlow's factories build theirs from a base URL that people type: /v1/v1/rerank, a slash too many, the bare base."""
    plain = path.rstrip("/")
    if method == "POST" and (plain.lower().endswith("/rerank") or plain in ("", "/v1")) and plain not in RERANK_PATHS:
        return RERANK_PATHS[0]
    return plain if plain in RERANK_PATHS + SCORE_PATHS else path


def is_served(model: str, names: tuple[str, ...]) -> bool:
    """Whether a name is one of ours, as people write it: in any case, with an owner or a folder before it, with RAGFlow's own ending (name___VLLM)."""

    def plain(name: str) -> str:
        return name.strip().lower().partition("___")[0].rstrip("/").rpartition("/")[2]

    return plain(model) in map(plain, names)


def parse(path: str, content_type: str, raw: bytes, limits: Limits) -> Call:
    """The call in a request's body; ApiError 4xx where there is none, whatever the bytes."""
    if content_type.split(";")[0].strip().lower() != "application/json":
        raise ApiError(400, "Bad Request", "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed")
    try:
        request = pieces.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ApiError.of_field("json_invalid", "", "JSON decode error") from error
    if not isinstance(request, dict):
        raise ApiError.of_field("model_attributes_type", "", "Input should be a valid dictionary or object to extract fields from")
    model = request.get("model")
    if model is not None and not isinstance(model, str):
        raise ApiError.of_field("string_type", "model", "Input should be a valid string")
    call = _rerank(request, limits) if path in RERANK_PATHS else _score(request, limits)
    if model and not is_served(model, limits.names):
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


def unscored(header: str | None, default: str) -> str:
    """What a call wants for documents without a score, from its header."""
    way = default if header is None else header.strip().lower()
    if way not in WAYS:
        raise ApiError(400, "Bad Request", f"The header {UNSCORED_HEADER} must be one of {', '.join(WAYS)}")
    return way


def _rerank(request: dict[str, Any], limits: Limits) -> Call:
    if isinstance(request.get("query"), list):
        raise ApiError.of_field("string_type", "query", "Input should be a valid string")
    query = _texts(request, "query")[0]
    # Text Embeddings Inference's shape, which RAGFlow's factory HuggingFace sends.
    bare = "texts" in request and "documents" not in request
    documents = _texts(request, "texts" if bare else "documents")
    _count(documents, limits)
    given = request.get("return_text", False) if bare else request.get("return_documents")
    return Call(
        rerank=True,
        pairs=tuple((query, document) for document in documents),
        top_n=_whole(request, "top_n", 0) or 0,
        # Xinference's client sends a string.
        return_documents=str(given).lower() not in ("false", "0"),
        bare=bare,
        **_common(request),
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
    return Call(rerank=False, pairs=tuple(zip(queries, right, strict=True)), **_common(request))


def _common(request: dict[str, Any]) -> dict[str, Any]:
    """What a call has on both routes; ApiError for a wish that is not granted here, which in silence would be another answer than was asked for."""
    for name, (granted, sentence) in WISHES.items():
        if request.get(name) is not None and not granted(request[name]):
            raise ApiError.of_field("value_error", name, sentence)
    own = _texts(request, "request_id") if request.get("request_id") is not None else [""]
    if len(own) != 1 or isinstance(request.get("request_id"), list | dict):
        raise ApiError.of_field("string_type", "request_id", "Input should be a valid string")
    return {
        "instruction": _instruction(request),
        "keep": _keep(request),
        "keep_query": _whole(request, "max_tokens_per_query", 0) or None,
        "id": own[0],
    }


def _texts(request: dict[str, Any], name: str) -> list[str]:
    if name not in request:
        raise ApiError.of_field("missing", name, "Field required")
    value = request[name]
    return [_text(item, name, place) for place, item in enumerate(value)] if isinstance(value, list) else [_text(value, name)]


def _text(item: object, name: str, place: int | None = None) -> str:
    """One text: a string, an object with a `text`, or one whose `content` is text or a list of parts of type text (vLLM joins those by lines)."""
    if isinstance(item, dict) and "content" in item:
        parts = item["content"]
        if isinstance(parts, list) and parts:
            if other := next((part for part in parts if not (isinstance(part, dict) and part.get("type") == "text")), None):
                kind = other.get("type") if isinstance(other, dict) else None
                shown = f", and this one is {kind}" if isinstance(kind, str) and re.fullmatch(r"[a-z_]{1,40}", kind) else ""
                raise ApiError.of_field("value_error", name, f"This model reads content parts of type text alone{shown}; send the text of it", place)
            return "\n".join(_text(part.get("text"), name, place) for part in parts)
        item = None if isinstance(parts, list) else parts
    elif isinstance(item, dict) and "text" in item:
        item = item["text"]
    if not isinstance(item, str):
        raise ApiError.of_field("string_type", name, "Input should be a valid string", place)
    try:
        item.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ApiError.of_field("string_unicode", name, "Input should be text without lone surrogates", place) from error
    return item


def _count(documents: list[str], limits: Limits) -> None:
    if len(documents) > limits.documents:
        raise ApiError(
            413, "Request Entity Too Large", f"The request has {about(len(documents))} documents and may have {about(limits.documents)}", "documents"
        )


def _whole(request: dict[str, Any], name: str, least: int) -> int | None:
    value = request.get(name)
    if value is None:
        return None
    number = whole(value)
    if number is None:
        raise ApiError.of_field("int_type", name, "Input should be a valid integer")
    if number < least:
        raise ApiError.of_field("greater_than_equal", name, f"Input should be greater than or equal to {least}")
    return number


def whole(value: object) -> int | None:
    """The integer that a value stands for, as vLLM takes it: 5, 5.0, "5", "5.0"; None for any other."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,18}(\.0{0,18})?", value.strip(), re.ASCII):
        return int(value.strip().partition(".")[0])
    return None


def flag(value: object) -> bool | None:
    """The truth value that a value stands for, as vLLM takes it: true, 1, "yes", …; None for any other."""
    word = str(value).strip().lower() if isinstance(value, bool | int | float | str) else ""
    return True if word in ("true", "t", "yes", "y", "on", "1", "1.0") else False if word in ("false", "f", "no", "n", "off", "0", "0.0") else None


def _keep(request: dict[str, Any]) -> int | None:
    # vLLM cuts the finished prompt with the second, template and all; here both cut the document.
    given = [_whole(request, "max_tokens_per_doc", 0), _whole(request, "truncate_prompt_tokens", -1)]
    return min((value for value in given if value is not None and value > 0), default=None)


def _instruction(request: dict[str, Any]) -> str | None:
    kwargs = request.get("chat_template_kwargs")
    if kwargs is not None and not isinstance(kwargs, dict):
        raise ApiError.of_field("dict_type", "chat_template_kwargs", "Input should be a valid dictionary")
    # The one in chat_template_kwargs goes first, as in vLLM.
    value = kwargs["instruction"] if kwargs and "instruction" in kwargs else request.get("instruction")
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise ApiError.of_field("string_type", "instruction", "Input should be a valid string")
    return _text(value, "instruction")


_PROBABILITIES = "Scores are probabilities here, and raw ones are not to be had; leave the field out"
# Fields that ask for another answer or for other care: which values ask for what is done anyway, and what is said to all others.
WISHES: dict[str, tuple[Callable[[Any], bool], str]] = {
    # vLLM's name, and those that it had before.
    **dict.fromkeys(("use_activation", "activation", "softmax"), (lambda value: flag(value) is True, _PROBABILITIES)),
    "raw_scores": (lambda value: flag(value) is False, _PROBABILITIES),
    "truncation_side": (lambda value: value == "right", "A document is cut at its end here; leave the field out, or cut the document yourself"),
    "truncation_direction": (
        lambda value: str(value).lower() == "right",
        "A document is cut at its end here; leave the field out, or cut the document yourself",
    ),
    "padding": (lambda value: value == "do_not_pad", "Prompts are not padded here, it would change their scores; leave the field out"),
    "priority": (lambda value: whole(value) == 0, "All calls have equal parts of the engine here; leave the field out"),
    "cache_salt": (
        lambda value: False,
        "Scores are remembered for all callers together here; leave the field out, and set cacheEntries to 0 and prefixCaching to false "
        "where callers must not learn of each other",
    ),
    "rank_fields": (lambda value: value in ([], ["text"]), "Of a document the field text alone is read here; put into it what is to be ranked"),
}
