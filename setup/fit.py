"""What of RAGFlow's calls fits into this machine's time, in RAGFlow's own terms."""

from collections.abc import Mapping

from serving.rank.budget import Budget, budget
from serving.rank.scheduler import ANSWER_SECONDS, ANSWER_SHARE, SAFETY, SPARE_SECONDS, SPARE_SHARE

# RAGFlow's default call (docs/ragflow.md): a chat with its page of 6, chunks as the General method makes them.
DOCUMENTS, CHUNK_TOKENS, PAGE = 66, 512, 6
HALF_CHUNK_TOKENS = 256
# The template with the default instruction, as Qwen's tokenizer counts it: what all documents share, with a query of 25 tokens, and what each has behind it.
SHARED_TOKENS, BEHIND_TOKENS = 100, 9
# Where RAGFlow sends sentences as they are (v0.23 and later); its other engines get words cut to their stems.
NATURAL_ENGINES = ("infinity",)
DEFAULT_ENGINE = "elasticsearch"


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


def lines(tokens_per_second: float, *, deadline: int, least: int, engines: Mapping[str, str]) -> list[str]:
    """The fit, in five lines at most. `engines`: the DOC_ENGINE of each RAGFlow, '' where it has none set."""
    room = tokens(tokens_per_second, deadline)
    return [
        f"The fit, at the {tokens_per_second:,.0f} tokens/s that this reranker has learned, within deadlineSeconds {deadline}:",
        f"  RAGFlow's default call   {DOCUMENTS} chunks of {CHUNK_TOKENS} tokens: {_scored(default_call(room, least))}",
        f"  top_k and chunk size     {_advice(room)}",
        "  factory                  VLLM sends chunks whole, and the reranker cuts where it must; OpenAI-API-Compatible cuts each to 500 tokens itself",
        f"  similarity_threshold     {_threshold(engines)}",
    ]


def _scored(planned: Budget) -> str:
    if planned.count == DOCUMENTS:
        return "all scored whole" if planned.keep >= CHUNK_TOKENS else f"all scored, on their first {planned.keep} tokens each"
    if not planned.count:
        return "not one can be scored, and the call is refused (503)"
    return f"the first {planned.count} scored, on their first {planned.keep} tokens; {DOCUMENTS - planned.count} get no score of the model"


def _advice(room: int) -> str:
    """RAGFlow sends whole pages from v0.26 on: only a top_k of whole pages is kept to."""
    full, half = ((whole(room, chunk) // PAGE) * PAGE for chunk in (CHUNK_TOKENS, HALF_CHUNK_TOKENS))
    if full >= DOCUMENTS:
        return "as they are"
    keep = budget([CHUNK_TOKENS] * DOCUMENTS, each=BEHIND_TOKENS, tokens=room, least=1).keep // 32 * 32
    ways = [f"{count} (chunks of {chunk})" for count, chunk in ((full, CHUNK_TOKENS), (half, HALF_CHUNK_TOKENS)) if 0 < count < DOCUMENTS]
    if keep >= 64:
        ways.append(f"any (chunks of {keep})")
    if not ways:
        return f"not even {PAGE} chunks of {HALF_CHUNK_TOKENS} tokens fit whole: give the reranker more cpus"
    return f"nothing is cut with top_k {' or '.join(ways)}; top_k counts from v0.25 on"


def _threshold(engines: Mapping[str, str]) -> str:
    if not engines:
        return "0.05 to 0.1, as words cut to their stems score low; 0.2 where `docker exec RAGFLOW printenv DOC_ENGINE` says infinity"
    names: dict[str, list[str]] = {}
    for name, engine in engines.items():
        names.setdefault(engine.strip().lower() or DEFAULT_ENGINE, []).append(name)
    told = {
        engine: "0.2 will do: %s sends sentences (v0.23 and later)"
        if engine in NATURAL_ENGINES
        else "0.05 to 0.1: %s sends words cut to their stems, which score low"
        for engine in names
    }
    return "; ".join(told[engine] % f"DOC_ENGINE {engine} ({', '.join(users)})" for engine, users in names.items())
