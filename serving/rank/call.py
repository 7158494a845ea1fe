"""What to score, and a score. Nothing here knows where a call came from."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Call:
    """What to score: pairs of query and document, in the caller's order. `keep` and `keep_query` limit the tokens of each document and of the query (None: the limits of all calls).

    `id` is the caller's own name for it.
    """

    rerank: bool
    pairs: tuple[tuple[str, str], ...]
    instruction: str | None = None
    keep: int | None = None
    keep_query: int | None = None
    top_n: int = 0
    return_documents: bool = True
    bare: bool = False  # the answer is a bare list of places and scores
    id: str = ""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A relevance score, the tokens of the document that it stands for, those the document has, and the prompt's tokens; `query_kept` where the query was cut."""

    score: float
    kept: int
    length: int
    tokens: int
    query_kept: int | None = None

    @property
    def whole(self) -> bool:
        return self.kept >= self.length


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A finished call: what was scored, by place in the call; and how much of that was not computed for it."""

    scored: dict[int, Scored]
    cached: int
    hit_deadline: bool
    planned: float | None = None
