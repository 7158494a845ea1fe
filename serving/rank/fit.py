"""What of RAGFlow's default call fits into a machine's time: the arithmetic behind `make verify`'s advice and the page's."""

from dataclasses import dataclass

from serving.rank.budget import Budget, budget
from serving.rank.scheduler import ANSWER_SECONDS, ANSWER_SHARE, SAFETY, SPARE_SECONDS, SPARE_SHARE

# RAGFlow's default call (docs/ragflow.md): a chat with its page of 6, chunks as the General method makes them.
DOCUMENTS, CHUNK_TOKENS, PAGE = 66, 512, 6
HALF_CHUNK_TOKENS = 256
LEAST_CHUNK_TOKENS = 64  # smaller chunks are no advice
# The template with the default instruction, as Qwen's tokenizer counts it: what all documents share, with a query of 25 tokens, and what each has behind it.
SHARED_TOKENS, BEHIND_TOKENS = 100, 9


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What is scored of the default call, and what to ask for so that nothing is cut.

    `whole`: the default call is scored as it is. Else `top_k`: values of it with the chunk size in tokens at which each holds, none where not even one page
    fits; `chunk`: the chunk size at which any top_k holds, 0 where that is too small to advise.
    """

    call: Budget
    whole: bool
    top_k: tuple[tuple[int, int], ...]
    chunk: int


def tokens(tokens_per_second: float, deadline: float) -> int:
    """Tokens of documents that an idle reranker of this speed plans to score by the deadline."""
    planned = deadline - min(ANSWER_SECONDS, ANSWER_SHARE * deadline) - min(SPARE_SECONDS, SPARE_SHARE * deadline)
    return max(0, int(tokens_per_second * SAFETY * planned) - SHARED_TOKENS)


def default_call(room: int, least: int) -> Budget:
    """What of RAGFlow's default call is scored with `room` tokens."""
    return budget([CHUNK_TOKENS] * DOCUMENTS, each=BEHIND_TOKENS, tokens=room, least=least)


def whole(room: int, chunk: int) -> int:
    """How many chunks of that size are scored without a cut, of a default call's at most."""
    return budget([chunk] * DOCUMENTS, each=BEHIND_TOKENS, tokens=room, least=chunk).count


def fit(room: int, least: int) -> Fit:
    """RAGFlow sends whole pages from v0.26 on: only a top_k of whole pages is kept to."""
    full, half = ((whole(room, chunk) // PAGE) * PAGE for chunk in (CHUNK_TOKENS, HALF_CHUNK_TOKENS))
    keep = default_call(room, 1).keep // 32 * 32
    return Fit(
        call=default_call(room, least),
        whole=full >= DOCUMENTS,
        top_k=tuple((count, chunk) for count, chunk in ((full, CHUNK_TOKENS), (half, HALF_CHUNK_TOKENS)) if 0 < count < DOCUMENTS),
        chunk=keep if keep >= LEAST_CHUNK_TOKENS else 0,
    )
