"""What RAGFlow's default call will get on this machine: from a speed that was learned, measured, or known of CPUs like it. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from config.settings import Settings
from host.rows import Level, Row
from serving.memory import KNOWN_MODELS, ModelShape
from serving.rank.fit import CHUNK_TOKENS, DOCUMENTS, fit, tokens
from serving.rank.speed import FIRST_GUESS
from setup.fit import advice, scored

# bench/figures/serving.md, part 1: the 0.6B shape reached this share of the matrix product's speed, in each format. A token costs two operations for each weight outside
# the embedding, and attention's part.
SHARE = {"bfloat16": 695 / 861 * 0.959, "float32": 387 / 414 * 0.959}
ATTENTION = 1.09
# The same figures for one core: 2 cores of an AMD EPYC (family 26); for AVX2 by the matrix product held to it.
A_CORE = {"bfloat16": 695 / 2, "float32, AVX-512": 387 / 2, "float32, AVX2": 387 / 2 * 233 / 414}
SMALL = "qwen3-reranker-0.6b"


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Tokens a second that are scored, where that comes from, and how sure it is."""

    tokens_per_second: float
    source: str
    sure: str


def learned(tokens_per_second: float) -> Speed | None:
    """What a running reranker has learned of itself; None where it only guesses."""
    if tokens_per_second <= 0 or tokens_per_second == FIRST_GUESS:
        return None
    return Speed(
        tokens_per_second=tokens_per_second,
        source="as the running reranker has learned",
        sure="within a tenth, while the machine is as busy as it was",
    )


def measured(gflops: float, dtype: str, model: str) -> Speed | None:
    """From a matrix product measured inside a container."""
    if dtype not in SHARE or gflops <= 0 or model not in KNOWN_MODELS:
        return None
    speed = gflops * SHARE[dtype] / _operations(KNOWN_MODELS[model])
    return Speed(
        tokens_per_second=speed,
        source=f"by a matrix product of {gflops:,.0f} GFLOP/s in {dtype}, measured just now in a container",
        sure="within a quarter, where the CPU does nothing else meanwhile",
    )


def of_class(flags: Iterable[str], dtype: str, cores: float, model: str) -> Speed | None:
    """From the committed figures for CPUs with these instructions; None where there are none (ARM, a model of unknown shape)."""
    held = set(flags)
    kind = "bfloat16" if dtype == "bfloat16" and held & {"avx512_bf16", "amx_bf16"} else "float32, AVX-512" if "avx512f" in held else "float32, AVX2"
    if model not in KNOWN_MODELS or "avx2" not in held:
        return None
    speed = A_CORE[kind] * cores * _operations(KNOWN_MODELS[SMALL]) / _operations(KNOWN_MODELS[model])
    return Speed(
        tokens_per_second=speed,
        source=f"by the figures of bench/figures/serving.md for {kind}, times {cores:g} cores; nothing was measured here",
        sure="a factor of two either way",
    )


def _operations(shape: ModelShape) -> float:
    """Gigaflop for a token."""
    return 2 * (shape.parameters - shape.vocabulary * shape.hidden) * ATTENTION / 1e9


def row(s: Settings, speed: Speed | None) -> Row:
    """RAGFlow's default call: how many of its documents are scored, and how much of each."""
    if speed is None:
        return Row("RAGFlow's call", "not seen", "the speed of this machine could be neither measured nor read off figures of its like")
    call = fit(tokens(speed.tokens_per_second, s.deadline_seconds), s.min_document_tokens).call
    level: Level = "ok" if call.count == DOCUMENTS else "warn" if call.count else "fail"
    text = (
        f"{DOCUMENTS} chunks of {CHUNK_TOKENS} tokens within deadlineSeconds {s.deadline_seconds}: {scored(call)}; at about "
        f"{speed.tokens_per_second:,.0f} tokens/s, {speed.source} ({speed.sure})"
    )
    cure = (
        ""
        if level == "ok"
        else f"{advice(fit(tokens(speed.tokens_per_second, s.deadline_seconds), s.min_document_tokens))}; a longer deadlineSeconds lets it score more"
    )
    return Row("RAGFlow's call", level, text, cure)


def told(s: Settings, speed: Speed | None) -> dict[str, object] | None:
    """The same for --json."""
    if speed is None:
        return None
    call = fit(tokens(speed.tokens_per_second, s.deadline_seconds), s.min_document_tokens).call
    return {
        "tokensPerSecond": round(speed.tokens_per_second, 1),
        "source": speed.source,
        "sure": speed.sure,
        "deadlineSeconds": s.deadline_seconds,
        "documents": DOCUMENTS,
        "documentTokens": CHUNK_TOKENS,
        "documentsScored": call.count,
        "tokensKept": call.keep,
    }
