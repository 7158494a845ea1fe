"""What a call gives, and whether an answer can be believed. Nothing here knows a connection."""

import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rerank.errors import MalformedAnswer

# What the service says beside an answer (docs/calls.md). Other servers say nothing of it.
_DOCUMENTS, _SCORED, _CACHED = "x-rerank-documents", "x-rerank-scored", "x-rerank-cached"
_CUT, _KEPT, _QUERY_KEPT = "x-rerank-cut", "x-rerank-kept-tokens", "x-rerank-query-kept-tokens"
_UNSCORED, _UNSCORED_AS, _UNHEALTHY = "x-rerank-unscored", "x-rerank-unscored-as", "x-rerank-unhealthy"
_REMEDY = "Is base_url the reranker itself? `curl BASE_URL/v1/models` shows what answers there."


@dataclass(frozen=True, slots=True)
class Item:
    """A document with its relevance score; `index` is its place in the call."""

    index: int
    score: float
    document: str


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the service says of a call. Places are indexes of the call's documents; None and () where it says nothing.

    documents           how many the call has
    scored              how many have a score of the model
    cached              how many of those were known already
    cut                 which were cut to fit the deadline or the model
    kept_tokens         what the shortest of those kept
    query_kept_tokens   what is left of a query that was cut
    unscored            which have no score of the model, but a value in its place
    unscored_as         how those got their values: typical or below
    unhealthy           why the scores are not to be trusted
    shortened           `cut` or `unscored` holds the first places only, because the list was too long for a header
    model, tokens       the name that answered, and the prompts' tokens
    requests            how many requests were answered for it
    seconds             from the call to its result
    raw                 the service's JSON; of a call that was split, joined in the same shape
    """

    documents: int
    scored: int | None = None
    cached: int | None = None
    cut: tuple[int, ...] = ()
    kept_tokens: int | None = None
    query_kept_tokens: int | None = None
    unscored: tuple[int, ...] = ()
    unscored_as: str | None = None
    unhealthy: str | None = None
    shortened: bool = False
    model: str = ""
    tokens: int | None = None
    requests: int = 0
    seconds: float = 0.0
    raw: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class RerankResult(Answer):
    """`items`, best first; of equal scores those of the model come first, then those that came first in the call."""

    items: tuple[Item, ...]

    @property
    def scores(self) -> tuple[float, ...]:
        """The items' scores, in their order."""
        return tuple(item.score for item in self.items)


@dataclass(frozen=True, kw_only=True)
class ScoreResult(Answer):
    """`scores`, one for each document, in the call's order."""

    scores: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Health:
    """What /health says: `status` is healthy, starting or unhealthy; `reason` why it is not healthy; `skipped` what was not checked."""

    healthy: bool
    status: str
    reason: str = ""
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Part:
    """The believed answer to a part of a call, which begins at document `start` and has `count`: scores by place, in the part's own counting."""

    start: int
    count: int
    scores: Mapping[int, float]
    headers: Mapping[str, str]
    body: Mapping[str, Any]


def parsed(data: bytes) -> Any:
    """The JSON in an answer; MalformedAnswer where there is none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        start = data[:200].lstrip().lower()
        what = "a web page" if start.startswith((b"<!doctype", b"<html")) else "no JSON" if data else "empty"
        remedy = "Something else answers there, perhaps a proxy or a login page. " + _REMEDY if what == "a web page" else _REMEDY
        raise MalformedAnswer(f"The answer is {what}.", remedy=remedy) from error


def health_of(healthy: bool, data: bytes) -> Health:
    """What the body of /health says; a plain vLLM's says nothing. MalformedAnswer where it is none."""
    body = parsed(data) if data.strip() or not healthy else {}
    if not isinstance(body, dict) or not (healthy or isinstance(body.get("status"), str)):
        raise MalformedAnswer("What /health answers is no health.", remedy=_REMEDY)
    skipped = body.get("skipped")
    return Health(
        healthy=healthy,
        status=str(body.get("status") or "healthy"),
        reason=str(body.get("reason") or ""),
        skipped=tuple(map(str, skipped)) if isinstance(skipped, list) else (),
    )


def scores_of(body: Any, name: str, field: str, count: int, expected: int) -> dict[int, float]:
    """Score by place, in the answer's order, of the list `name`; MalformedAnswer where an entry is missing, double, out of range or no number."""
    entries = body.get(name) if isinstance(body, dict) else None
    if not isinstance(entries, list):
        raise MalformedAnswer(f"The answer has no list of {name}.", remedy=_REMEDY)
    if len(entries) != expected:
        raise _lie(f"{len(entries)} {name} where {expected} were asked for")
    found: dict[int, float] = {}
    for entry in entries:
        index, score = (entry.get("index"), entry.get(field)) if isinstance(entry, dict) else (None, None)
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < count:
            raise _lie(f"an index that is none of the {count} documents")
        if index in found:
            raise _lie(f"the index {index} twice")
        if not isinstance(score, (int, float)) or isinstance(score, bool) or not _finite(score):
            raise _lie(f"a score that is no number, for the document with index {index}")
        found[index] = float(score)
    return found


def require_sorted(scores: Mapping[int, float]) -> None:
    """MalformedAnswer where a better score stands behind a worse one."""
    values = list(scores.values())
    if any(after > before for before, after in itertools.pairwise(values)):
        raise _lie("results that are not sorted, best first")


def told(parts: Sequence[Part], *, seconds: float) -> dict[str, Any]:
    """The fields of Answer, of all parts together: counts are added, places are the whole call's."""
    cut, unscored = [_places(part, _CUT) for part in parts], [_places(part, _UNSCORED) for part in parts]
    kept, query_kept = [_number(part, _KEPT) for part in parts], [_number(part, _QUERY_KEPT) for part in parts]
    for part in parts:
        if (documents := _number(part, _DOCUMENTS)) not in (None, part.count):
            raise _lie(f"{documents} documents counted where {part.count} were sent")
    return {
        "documents": sum(part.count for part in parts),
        "scored": _sum([_number(part, _SCORED) for part in parts]),
        "cached": _sum([_number(part, _CACHED) for part in parts]),
        "cut": tuple(place for places, _ in cut for place in places),
        "unscored": tuple(place for places, _ in unscored for place in places),
        "shortened": any(short for _, short in cut + unscored),
        "kept_tokens": min((number for number in kept if number is not None), default=None),
        "query_kept_tokens": min((number for number in query_kept if number is not None), default=None),
        "unscored_as": next((part.headers[_UNSCORED_AS] for part in parts if _UNSCORED_AS in part.headers), None),
        "unhealthy": next((part.headers[_UNHEALTHY] for part in parts if _UNHEALTHY in part.headers), None),
        "model": next((str(part.body["model"]) for part in parts if part.body.get("model")), ""),
        "tokens": _sum([_tokens(part.body) for part in parts]),
        "requests": len(parts),
        "seconds": seconds,
    }


def joined(parts: Sequence[Part], name: str, entries: Sequence[Mapping[str, Any]], tokens: int | None) -> Mapping[str, Any]:
    """The service's JSON: as it came where it came in one part, else the first part's with all entries and tokens."""
    if len(parts) == 1:
        return parts[0].body
    usage = {} if tokens is None else {"usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
    return {**(parts[0].body if parts else {}), **usage, name: list(entries)}


def _lie(what: str) -> MalformedAnswer:
    return MalformedAnswer(
        f"The answer cannot be right: it has {what}.",
        remedy="The scores are not used. If this is the service itself, its version and log are of interest.",
    )


def _finite(score: float) -> bool:
    try:
        return math.isfinite(score)
    except OverflowError:  # a whole number beyond every float
        return False


def _number(part: Part, name: str) -> int | None:
    text = part.headers.get(name)
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise _lie(f"a header {name} that is no number")
    return int(text)


def _places(part: Part, name: str) -> tuple[tuple[int, ...], bool]:
    """Places in the call that a header names as '3,26-65', and whether it was shortened ('...' at its end)."""
    text = part.headers.get(name, "")
    short = text.endswith("...")
    found: list[int] = []
    for piece in filter(None, text.removesuffix("...").strip(",").split(",")):
        match = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", piece.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
        if not first <= last < part.count or (found and part.start + first <= found[-1]):
            raise _lie(f"a header {name} with a place that is none of the documents, or twice")
        found += range(part.start + first, part.start + last + 1)
    return tuple(found), short


def _sum(numbers: Sequence[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if known else None


def _tokens(body: Mapping[str, Any]) -> int | None:
    usage = body.get("usage")
    tokens = usage.get("total_tokens") if isinstance(usage, dict) else None
    return tokens if isinstance(tokens, int) else None
