"""The arithmetic of the benchmark: pure, and tested without vLLM."""

import re
from collections.abc import Mapping, Sequence

from serving.memory import ModelShape
from serving.rank.budget import budget
from serving.rank.unscored import BELOW, ranked

TOP = 8  # documents that RAGFlow hands on to the chat model by default
NAIVE_CUT_TOKENS = 128


def counters(text: str) -> dict[str, float]:
    """Prometheus' text format: the sum of each metric over its labels."""
    sums: dict[str, float] = {}
    for name, value in re.findall(r"^([a-zA-Z_:][\w:]*)(?:\{[^\n]*\})? ([^\s]+)$", text, re.M):
        sums[name] = sums.get(name, 0.0) + float(value)
    return sums


def computed_tokens(before: Mapping[str, float], after: Mapping[str, float]) -> int:
    """Tokens that vLLM computed between two looks at its metrics: those of the prompts, less those it found in its prefix cache."""
    prompt, cached = (after[name] - before[name] for name in ("vllm:prompt_tokens_total", "vllm:prefix_cache_hits_total"))
    return round(prompt - cached)


def flop_per_token(shape: ModelShape, context: float) -> float:
    """Two for each weight outside the embedding, and attention's two products over `context` tokens, the mean that a token looks back on."""
    weights = shape.parameters - shape.vocabulary * shape.hidden
    return 2 * weights + 4 * shape.layers * shape.heads * shape.head_dim * context


def limit_tokens(shape: ModelShape, context: float, gflops: float) -> float:
    """Tokens a second if all that is computed ran as fast as the machine's matrix product."""
    return gflops * 1e9 / flop_per_token(shape, context)


def top(places: Sequence[int], count: int = TOP) -> frozenset[int]:
    return frozenset(places[:count])


def agreement(found: Sequence[int], wanted: Sequence[int], count: int = TOP) -> float:
    """Share of the wanted top that is in the other top as well."""
    return len(top(found, count) & top(wanted, count)) / count


def ranking(scores: Mapping[int, float], documents: int) -> list[int]:
    """Those with a score, best first, then the others in the caller's order; equal scores in the caller's order."""
    return list(ranked(scores, documents, BELOW).order)


def kept(way: str, lengths: Sequence[int], *, each: int, tokens: int, least: int) -> dict[int, int]:
    """What a way scores of a call when `tokens` can be computed: document -> tokens that are kept of it. Ways: plan | first | cut | unbounded."""
    if way == "unbounded":
        return dict(enumerate(lengths))
    if way == "plan":
        found = budget(lengths, each=each, tokens=tokens, least=least)
        return {index: min(lengths[index], found.keep) for index in range(found.count)}
    limit = {"first": max(lengths), "cut": NAIVE_CUT_TOKENS}[way]
    chosen: dict[int, int] = {}
    for index, length in enumerate(lengths):
        tokens -= min(length, limit) + each
        if tokens < 0:
            break
        chosen[index] = min(length, limit)
    return chosen


def bare_argv(argv: Sequence[str]) -> list[str]:
    """vLLM's arguments without its middleware."""
    at = list(argv).index("--middleware")
    return [*argv[:at], *argv[at + 2 :]]
