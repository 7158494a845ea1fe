"""What a caller is told of a call: the body in vLLM's shapes, the headers beside it, and the line in the log, which has no text of the user's."""

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from serving.rank.call import Call, Outcome
from serving.rank.unscored import Ranking

HEADER_CHARACTERS = 2000
_encode = json.JSONEncoder(ensure_ascii=False).encode
PIECE_CHARACTERS = 64 << 10  # a longer text is written in pieces: what writes one holds up every other thread


@dataclass(frozen=True, kw_only=True)
class Account:
    """What was done to a call: places of its documents that were cut and that have no score, and the tokens that the shortest of the cut ones kept.

    `query_kept` is the same of a query that was cut, `way` how those without a score were given a value (rank/unscored.py).
    """

    call: Call
    outcome: Outcome
    took: float
    allowed: float
    cut: tuple[int, ...]
    unscored: tuple[int, ...]
    kept: int | None
    query_kept: int | None
    tokens: int
    way: str

    def headers(self) -> list[tuple[str, str]]:
        scored = len(self.outcome.scored)
        said = [("x-rerank-documents", str(len(self.call.pairs))), ("x-rerank-scored", str(scored)), ("x-rerank-cached", str(self.outcome.cached))]
        if self.cut:
            said += [("x-rerank-cut", ranges(self.cut)), ("x-rerank-kept-tokens", str(self.kept))]
        if self.query_kept is not None:
            said.append(("x-rerank-query-kept-tokens", str(self.query_kept)))
        if self.unscored:
            said += [("x-rerank-unscored", ranges(self.unscored)), ("x-rerank-unscored-as", self.way)]
        return said

    def line(self) -> str:
        entry = {
            "documents": len(self.call.pairs),
            "scored": len(self.outcome.scored),
            "cut": len(self.cut),
            "kept_tokens": self.kept,
            "query_kept_tokens": self.query_kept,
            "unscored": len(self.unscored),
            "cached": self.outcome.cached,
            "tokens": self.tokens,
            "seconds": round(self.took, 3),
            "planned_seconds": round(self.outcome.planned, 3) if self.outcome.planned else None,
            "deadline_seconds": self.allowed,
        }
        return f"{'rerank' if self.call.rerank else 'score'} {json.dumps(entry)}"


def account(call: Call, outcome: Outcome, *, took: float, allowed: float, way: str) -> Account:
    """`took` and `allowed` in seconds."""
    scored = outcome.scored
    cut = tuple(place for place in sorted(scored) if not scored[place].whole)
    return Account(
        call=call,
        outcome=outcome,
        took=took,
        allowed=allowed,
        cut=cut,
        unscored=tuple(place for place in range(len(call.pairs)) if place not in scored),
        kept=min((scored[place].kept for place in cut), default=None),
        query_kept=min((one.query_kept for one in scored.values() if one.query_kept is not None), default=None),
        tokens=sum(one.tokens for one in scored.values()),
        way=way,
    )


def rerank_body(call: Call, ranking: Ranking, tokens: int, model: str) -> bytes:
    """vLLM's answer to a rerank, or Text Embeddings Inference's: best first, all of them where top_n is 0."""
    score, text = ("score", "text") if call.bare else ("relevance_score", "document")
    results = (
        (f'"index": {place}, "{score}": {ranking.scores[place]!r}', call.pairs[place][1] if call.return_documents else None)
        for place in (ranking.order if call.bare else ranking.order[: call.top_n or None])
    )
    if call.bare:
        return _joined("[", _written(results, f'"{text}": ', ""), "]")
    head = {"id": _id(call), "model": model, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
    return _listed(head, "results", _written(results, f'"{text}": {{"text": ', ', "multi_modal": null}'))


def score_body(call: Call, scores: Sequence[float], tokens: int, model: str) -> bytes:
    """vLLM's answer to a score request: one score a pair, in the order of the request."""
    usage = {
        "prompt_tokens": tokens,
        "total_tokens": tokens,
        "completion_tokens": 0,
        "prompt_tokens_details": None,
        "completion_tokens_details": None,
    }
    head = {"id": _id(call), "object": "list", "created": int(time.time()), "model": model, "usage": usage}
    pairs = ((f'"index": {place}, "object": "score", "score": {score!r}', None) for place, score in enumerate(scores))
    return _listed(head, "data", _written(pairs, "", ""))


def _id(call: Call) -> str:
    return f"score-{call.id or uuid.uuid4().hex[:16]}"


def _listed(head: dict[str, Any], name: str, entries: Iterator[str]) -> bytes:
    """The head's object with a list more."""
    return _joined(f'{json.dumps(head)[:-1]}, "{name}": [', entries, "]}")


def _joined(before: str, pieces: Iterator[str], after: str) -> bytes:
    return b"".join(piece.encode() for piece in (before, *pieces, after))


def _written(results: Iterator[tuple[str, str | None]], before: str, after: str) -> Iterator[str]:
    """Results, each the inside of an object and perhaps a text, as JSON with commas between them. The text stands between `before` and `after`."""
    comma = ""
    for result, text in results:
        head = f"{comma}{{{result}"
        comma = ", "
        if text is None:
            yield head + "}"
        elif len(text) <= PIECE_CHARACTERS:
            yield f"{head}, {before}{_encode(text)}{after}}}"
        else:
            yield f'{head}, {before}"'
            for start in range(0, len(text), PIECE_CHARACTERS):
                yield _encode(text[start : start + PIECE_CHARACTERS])[1:-1]
            yield f'"{after}}}'


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
