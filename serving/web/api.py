"""The rerank API in vLLM's shapes: a request's body becomes a Call or an ApiError, whatever the bytes. Nothing here waits."""

import re
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
    if bare and request.get("raw_scores"):
        raise ApiError.of_field("value_error", "raw_scores", "Scores are probabilities here; raw ones are not to be had")
    documents = _texts(request, "texts" if bare else "documents")
    _count(documents, limits)
    given = request.get("return_text", False) if bare else request.get("return_documents")
    return Call(
        rerank=True,
        pairs=tuple((query, document) for document in documents),
        instruction=_instruction(request),
        keep=_keep(request),
        top_n=_whole(request, "top_n", 0) or 0,
        # Xinference's client sends a string.
        return_documents=str(given).lower() not in ("false", "0"),
        bare=bare,
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
        raise ApiError(
            413, "Request Entity Too Large", f"The request has {about(len(documents))} documents and may have {about(limits.documents)}", "documents"
        )


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
