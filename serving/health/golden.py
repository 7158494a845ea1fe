"""The golden set: pairs whose score is beyond doubt, and what their scores say about the service.

The bands rest on published scores of Qwen3-Reranker, not on scores measured here: its weights were not at hand. With the model card's prompt:
0.798 and 0.000005 for the French pairs below (0.6B, sgl-project/sglang PR 16403), 0.994 and 0.0000007 for "What is the capital of China?" (8B,
vllm-project/vllm-ascend's tutorial), 0.975 and 0.000 (8B, vllm-project/vllm issue 55501); for the 4B none was found. Without the prompt, or with a part
of it: 0.816 and 0.802 (0.6B, vllm issue 21681), 0.804 and 0.958 (8B, issue 55501). So the bands are wide: an irrelevant document may score 0.2, six
tenths below the published failures; a relevant one must reach 0.5, three tenths below the lowest published. An irrelevant document is about something
else altogether, since a near miss ("The capital of China is Tianjin.") was published with 0.998 (QwenLM/Qwen3-Embedding issue 64). No pair crosses
languages, because no such score was found.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

# The bands hold for the model card's instruction, whatever the stack's own is.
INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
# Twice what a bfloat16 score may be off (2e-2): the same pair meets another batch, another chunk, a cached prefix.
REPEAT_TOLERANCE = 4e-2


@dataclass(frozen=True)
class Pair:
    query: str
    document: str
    relevant: bool
    language: str


@dataclass(frozen=True)
class Band:
    """A relevant document scores at least `relevant`, an irrelevant one at most `irrelevant`; so each query's relevant one comes first."""

    relevant: float
    irrelevant: float

    def holds(self, pair: Pair, score: float) -> bool:
        return score >= self.relevant if pair.relevant else score <= self.irrelevant

    def rule(self, pair: Pair) -> str:
        return f"at least {self.relevant:g}" if pair.relevant else f"at most {self.irrelevant:g}"


@dataclass(frozen=True)
class Verdict:
    """`reason` is one sentence where not healthy, else empty; `skipped` names, a sentence each, the checks that were left out."""

    healthy: bool
    reason: str = ""
    skipped: tuple[str, ...] = ()


BANDS = {slug: Band(relevant=0.5, irrelevant=0.2) for slug in ("qwen3-reranker-0.6b", "qwen3-reranker-4b", "qwen3-reranker-8b")}


def _pairs() -> tuple[Pair, ...]:
    gravity = (
        "Gravity is a force that attracts two bodies towards each other. "
        "It gives weight to physical objects and is responsible for the movement of planets around the sun."
    )
    rows = (  # language, query, relevant, irrelevant
        ("en", "What is the capital of China?", "The capital of China is Beijing.", gravity),
        ("en", "Explain gravity", gravity, "The capital of China is Beijing."),
        (
            "de",
            "Was ist die Hauptstadt von Deutschland?",
            "Die Hauptstadt von Deutschland ist Berlin.",
            "Äpfel wachsen an Bäumen und werden im Herbst geerntet.",
        ),
        (
            "de",
            "Was ist Photosynthese?",
            "Photosynthese ist der Vorgang, bei dem Pflanzen aus Licht, Wasser und Kohlendioxid Zucker und Sauerstoff bilden.",
            "Der Zug nach Hamburg fährt um acht Uhr von Gleis drei ab.",
        ),
        ("zh", "法国首都是哪里？", "法国的首都是巴黎。", "香蕉是黄色的水果。"),
        ("zh", "什么是机器学习？", "机器学习是人工智能的一个分支，通过算法让计算机从数据中学习模式。", "这家书店每天早上九点开门。"),
    )
    pairs = [Pair(query, text, fits, language) for language, query, right, wrong in rows for text, fits in ((right, True), (wrong, False))]
    return (*pairs, pairs[0])


# In the order to score them, by an engine and not from a cache: the last repeats the first, to see whether a score holds.
PAIRS = _pairs()


def judge(slug: str, scores: Sequence[float]) -> Verdict:
    """What the scores of PAIRS, in its order, say. `slug` is the model's, e.g. qwen3-reranker-0.6b; only those in BANDS have a band."""
    reason = _broken(scores) or (_outside(slug, BANDS[slug], scores) if slug in BANDS else _unsteady(scores))
    skipped = () if slug in BANDS else (_left_out(slug),)
    return Verdict(healthy=not reason, reason=reason, skipped=skipped)


def _left_out(slug: str) -> str:
    known = ", ".join(BANDS)
    return (
        f"Whether {slug or 'this model'} scores relevant documents high and irrelevant ones low was not checked: "
        f"there are golden bands for {known} alone, so try it with documents that you know."
    )


def _named(pair: Pair) -> str:
    """A pair in short: these texts are ours, so a log may show them."""
    document = pair.document if len(pair.document) <= 40 else pair.document[:39].rstrip() + "…"
    return f'"{pair.query}" with "{document}" ({pair.language}, {"relevant" if pair.relevant else "irrelevant"})'


def _broken(scores: Sequence[float]) -> str:
    """What no engine may answer: another number of scores, or one that is no number in [0, 1]."""
    if len(scores) != len(PAIRS):
        return (
            f"The golden set's {len(PAIRS)} pairs got {len(scores)} scores, but each pair must get one: look for the engine's own error in the log."
        )
    for pair, score in zip(PAIRS, scores, strict=True):
        if not (math.isfinite(score) and 0 <= score <= 1):
            return (
                f"The golden pair {_named(pair)} scored {score:g}, but a score is a number from 0 to 1: "
                "the arithmetic fails in this dtype or the weights are damaged; set dtype to float32, or load the model again."
            )
    return ""


def _unsteady(scores: Sequence[float]) -> str:
    """What holds for every reranker: texts differ, so do scores; the same text keeps its score."""
    if max(scores) == min(scores):
        return (
            f"All golden pairs scored {scores[0]:g}, but different texts must score differently: "
            "the texts do not reach the model or it is no reranker; check the stack's model and the prompt in serving/."
        )
    return _unrepeated(scores)


def _unrepeated(scores: Sequence[float]) -> str:
    if abs(scores[0] - scores[-1]) > REPEAT_TOLERANCE:
        return (
            f"The golden pair {_named(PAIRS[0])} scored {scores[0]:.4g} and then {scores[-1]:.4g}, but the same pair must keep its score within "
            f"{REPEAT_TOLERANCE:g}: the engine computes wrongly on this machine; set dtype to float32 and take out vllmExtraArgs."
        )
    return ""


def _outside(slug: str, band: Band, scores: Sequence[float]) -> str:
    """Which pair is farthest out of its band, and what such scores usually come from."""
    failed = [(abs(score - pair.relevant), pair, score) for pair, score in zip(PAIRS, scores, strict=True) if not band.holds(pair, score)]
    if not failed:
        return _unrepeated(scores)
    _, pair, score = max(failed, key=lambda each: each[0])
    swapped = all(band.holds(pair, 1 - score) for pair, score in zip(PAIRS, scores, strict=True))
    if swapped:
        cause = 'all scores are upside down, so the tokens of the override are swapped; give classifier_from_token as ["no", "yes"]'
    else:
        cause = (
            "the score template is left out or changed, an override is wrong (classifier_from_token is not ["
            f'"no", "yes"]), or the weights are not {slug}\'s; restore serving/ as it was released, or load the model again'
        )
    return f"The golden pair {_named(pair)} scored {score:.4g}, but {slug} scores it {band.rule(pair)} ({len(failed)} of {len(PAIRS)} pairs are out of their band): {cause}."
