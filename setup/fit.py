"""What of RAGFlow's calls fits into this machine's time, in RAGFlow's own terms."""

from collections.abc import Mapping

from serving.rank.budget import Budget
from serving.rank.fit import CHUNK_TOKENS, DOCUMENTS, HALF_CHUNK_TOKENS, PAGE, Fit, fit, tokens

# Where RAGFlow sends sentences as they are (v0.23 and later); its other engines get words cut to their stems.
NATURAL_ENGINES = ("infinity",)
DEFAULT_ENGINE = "elasticsearch"


def lines(tokens_per_second: float, *, deadline: int, least: int, engines: Mapping[str, str]) -> list[str]:
    """The fit, in five lines at most. `engines`: the DOC_ENGINE of each RAGFlow, '' where it has none set."""
    found = fit(tokens(tokens_per_second, deadline), least)
    return [
        f"The fit, at the {tokens_per_second:,.0f} tokens/s that this reranker has learned, within deadlineSeconds {deadline}:",
        f"  RAGFlow's default call   {DOCUMENTS} chunks of {CHUNK_TOKENS} tokens: {scored(found.call)}",
        f"  top_k and chunk size     {advice(found)}",
        "  factory                  VLLM sends chunks whole, and the reranker cuts where it must; OpenAI-API-Compatible cuts each to 500 tokens itself",
        f"  similarity_threshold     {_threshold(engines)}",
    ]


def scored(planned: Budget) -> str:
    """How much of the default call is scored, in words."""
    if planned.count == DOCUMENTS:
        return "all scored whole" if planned.keep >= CHUNK_TOKENS else f"all scored, on their first {planned.keep} tokens each"
    if not planned.count:
        return "not one can be scored, and the call is refused (503)"
    return f"the first {planned.count} scored, on their first {planned.keep} tokens; {DOCUMENTS - planned.count} get no score of the model"


def advice(found: Fit) -> str:
    """What to ask for so that nothing is cut, in words."""
    if found.whole:
        return "as they are"
    ways = [f"{count} (chunks of {chunk})" for count, chunk in found.top_k] + ([f"any (chunks of {found.chunk})"] if found.chunk else [])
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
