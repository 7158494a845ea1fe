"""python -m bench.unscored: which value suits a document that was not scored in time, by what RAGFlow does with values; writes bench/figures/unscored.json, .md."""

import json
import math
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from bench.serving.report import rows
from serving.rank.unscored import BEST, STEADY_DOCUMENTS, below, typical

FIGURES = Path(__file__).parent / "figures"
DOCUMENTS, QUESTIONS = 66, 100
PAGES = (6, 8)
SHARES = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9)  # of the documents that were scored
ORDERS = {"strict": 0.95, "rough": 0.6, "random": 0.0}  # how much of the caller's order is relevance
TYPICAL, TODAY = f"goes on as they do, best {BEST:g}, steadied by {STEADY_DOCUMENTS}", "just below the lowest"


@dataclass(frozen=True, kw_only=True)
class World:
    """How RAGFlow is set, its defaults here, and how much of its term similarity is relevance."""

    weight: float = 0.3
    threshold: float = 0.2
    terms: float = 0.4
    stretched: bool = False  # our scores to 0 and 1 first
    seed: str = ""


WORLD = World()
# None of these had a say in the choice.
OTHERS = {
    "other questions of the same kind": World(seed="others"),
    "term similarity knows nothing of relevance": World(terms=0.0),
    "term similarity knows much of it": World(terms=0.8),
    "vector_similarity_weight 0.7": World(weight=0.7),
    "similarity_threshold 0.05": World(threshold=0.05),
    "scores stretched to 0 and 1 first, as OpenAI-API-Compatible and LocalAI did up to v0.25": World(stretched=True),
}
Value = Callable[[Sequence[float], int], Sequence[float]]


def logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def confident(relevance: float, chance: random.Random) -> float:
    """Almost 0 or almost 1, as Qwen3-Reranker scores natural text."""
    return logistic(4 * (relevance - 1.6 + chance.gauss(0, 0.2)))


def broad(relevance: float, chance: random.Random) -> float:
    return logistic(1.5 * (relevance - 0.2 + chance.gauss(0, 0.3)))


def flat(relevance: float, chance: random.Random) -> float:
    return min(1.0, max(0.0, 0.45 + 0.06 * relevance + chance.gauss(0, 0.03)))


def stemmed(relevance: float, chance: random.Random) -> float:
    """A tenth to a ninetieth, as the stemmed text that RAGFlow sends with Elasticsearch makes of it."""
    return confident(relevance, chance) / math.exp(chance.uniform(math.log(10), math.log(90)))


SCORES = {"confident": confident, "broad": broad, "flat": flat, "stemmed": stemmed}


@dataclass(frozen=True)
class Question:
    """In the caller's order: the reranker's score of each document and RAGFlow's term similarity."""

    scores: tuple[float, ...]
    terms: tuple[float, ...]


def question(scores: str, order: str, chance: random.Random, world: World = WORLD) -> Question:
    """One to eight relevant documents, some near to that, the others beside the point; each sees it through noise of its own."""
    relevant, near = chance.randint(1, 8), chance.randint(4, 16)
    means = [(2.2, 0.7)] * relevant + [(1.0, 0.7)] * near + [(-0.3, 0.9)] * (DOCUMENTS - relevant - near)
    found = [chance.gauss(*mean) for mean in means]
    seen = ORDERS[order]
    found.sort(key=lambda relevance: -(seen * relevance + math.sqrt(1 - seen**2) * chance.gauss(0, 1)))
    # Half of the documents that RAGFlow finds have a term similarity above 0.27; it knows less of relevance than the reranker.
    other = math.sqrt(1 - world.terms**2)
    terms = tuple(min(1.0, max(0.02, 0.27 + 0.11 * (world.terms * relevance + other * chance.gauss(0, 1)))) for relevance in found)
    return Question(scores=tuple(SCORES[scores](relevance, chance) for relevance in found), terms=terms)


def part(scores: Sequence[float], of: int) -> int:
    return max(1, len(scores) // of)


def alike(value: Callable[[Sequence[float]], float]) -> Value:
    """One value for all."""
    return lambda scores, missing: [value(scores)] * missing


def goes_on(best: float, steady: int) -> Value:
    return lambda scores, missing: typical(scores, missing, best, steady)


def falling(least: float) -> Value:
    """From the mean of the last third, no more than the median, evenly to a share of it at the last document."""

    def value(scores: Sequence[float], missing: int) -> Sequence[float]:
        begin = min(sorted(scores, reverse=True)[math.ceil(len(scores) / 2) - 1], fmean(scores[-part(scores, 3) :]))
        return [begin * (1 - (1 - least) * (number + 1) / missing) for number in range(missing)]

    return value


SHOWN = (TYPICAL, "mean of the last third", TODAY, "zero")
VALUES: dict[str, Value] = {
    "zero": alike(lambda scores: 0.0),
    TODAY: below,
    "the lowest": alike(min),
    "mean of the lowest third": alike(lambda scores: fmean(sorted(scores)[: part(scores, 3)])),
    "mean of the last third": alike(lambda scores: fmean(scores[-part(scores, 3) :])),
    "mean of the last half": alike(lambda scores: fmean(scores[-part(scores, 2) :])),
    "median": alike(median),
    "mean of all (the question's prior)": alike(fmean),
    "mean of the last third, falling to 0.7 of it": falling(0.7),
    "mean of the last third, falling to 0.5 of it": falling(0.5),
    **{
        f"goes on as they do, best {best:g}, steadied by {STEADY_DOCUMENTS}": goes_on(best, STEADY_DOCUMENTS) for best in (0.01, 0.33, 0.5, 0.67, 0.8)
    },
    **{f"goes on as they do, best {BEST:g}, steadied by {steady}": goes_on(BEST, steady) for steady in (0, 20, 40)},
}


def kept(final: Sequence[float], threshold: float) -> list[int]:
    """What RAGFlow keeps, best first; of equals the first (its sort is stable)."""
    return [place for place in sorted(range(len(final)), key=lambda place: -final[place]) if final[place] >= threshold]


def mixed(terms: Sequence[float], scores: Sequence[float], world: World = WORLD) -> list[float]:
    """RAGFlow's final scores."""
    if world.stretched:
        low, high = min(scores), max(scores)
        scores = [(score - low) / ((high - low) or 1.0) for score in scores]
    return [(1 - world.weight) * term + world.weight * score for term, score in zip(terms, scores, strict=True)]


def judged(asked: Question, count: int, value: Value, world: World = WORLD) -> dict[str, float]:
    """How near RAGFlow's answer with `count` documents scored is to its answer with all of them scored."""
    wanted = kept(mixed(asked.terms, asked.scores, world), world.threshold)
    scores = [*asked.scores[:count], *value(asked.scores[:count], len(asked.scores) - count)]
    found = kept(mixed(asked.terms, scores, world), world.threshold)
    both = len(set(wanted) & set(found))
    said = {f"page of {page}": len({*wanted[:page]} & {*found[:page]}) / max(1, len(wanted[:page])) for page in PAGES}
    return said | {
        "kept": 2 * both / max(1, len(wanted) + len(found)),
        "recall": both / max(1, len(wanted)),
        "places lost": sum(place < count for place in {*wanted[:8]} - {*found[:8]}),
    }


def measured(case: tuple[str, str, str, float]) -> list[dict[str, Any]]:
    """Each value's means over the questions of one case; in other worlds than RAGFlow's defaults those of SHOWN."""
    name, scores, order, share = case
    world = OTHERS.get(name, WORLD)
    chance = random.Random(f"{scores} {order} {share}{world.seed}")
    asked = [question(scores, order, chance, world) for _ in range(QUESTIONS)]
    count = max(1, round(share * DOCUMENTS))
    found = []
    for label, value in VALUES.items():
        if not name or label in SHOWN:
            each = [judged(one, count, value, world) for one in asked]
            said = {key: fmean(one[key] for one in each) for key in each[0]}
            found.append({"world": name, "value": label, "scores": scores, "order": order, "share": share, **said})
    return found


def means(found: Sequence[Mapping[str, Any]], by: str | None = None) -> dict[str, dict[str, dict[str, float]]]:
    """value -> group -> measure -> mean over the cases; the group is a row's `by`, or 'all'."""
    sums: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for row in found:
        sums.setdefault(row["value"], {}).setdefault(str(row[by]) if by else "all", []).append(row)
    named = ("world", "value", "scores", "order", "share")
    return {
        value: {group: {key: round(fmean(row[key] for row in mine), 4) for key in mine[0] if key not in named} for group, mine in groups.items()}
        for value, groups in sums.items()
    }


def worth(said: Mapping[str, float]) -> float:
    """What decides: as good a first page as with all scored, and as good a choice of what stays above the threshold."""
    return (said["page of 8"] + said["kept"]) / 2


def best(overall: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    return max(overall, key=lambda value: worth(overall[value]["all"]))


def table(results: Mapping[str, Any]) -> str:
    overall, chosen = results["all"], best(results["all"])
    header = ["value of an unscored document", "worth", *(f"page of {page}" for page in PAGES), "kept", "recall of kept", "places lost"]
    lines = [
        [
            f"**{value}**" if value == chosen else value,
            f"{worth(said['all']):.4f}",
            *(f"{said['all'][key]:.3f}" for key in (*(f"page of {page}" for page in PAGES), "kept", "recall", "places lost")),
        ]
        for value, said in sorted(overall.items(), key=lambda item: -worth(item[1]["all"]))
    ]
    parts = [
        "# What suits a document that was not scored in time\n\n"
        "`python -m bench.unscored` writes this file and the .json it is made of; nothing here is edited by hand. It is a model and no measurement with real texts: "
        f"questions with {DOCUMENTS} documents, one to eight relevant and four to sixteen near to that; score, term similarity and the caller's order each see the "
        "relevance through noise of their own. Scores are confident (almost 0 or 1), broad, flat (0.3 to 0.6), or stemmed (a tenth to a ninetieth, as with "
        f"Elasticsearch); the caller's order is strict, rough or random; {SHARES[0]:.0%} to {SHARES[-1]:.0%} of the documents, the first ones, were scored. "
        f"{results['questions']} questions a case. RAGFlow's final score is {1 - WORLD.weight:g} of the term similarity and {WORLD.weight:g} of ours, and what is below "
        f"{WORLD.threshold:g} is dropped.\n\n"
        "Everything is judged against RAGFlow's answer with all documents scored. 'Page': agreement of the first page. 'Kept': F1 of what stays above the threshold. "
        "'Worth': the mean of the page of 8 and 'kept'; it decides. 'Places lost': scored documents of a right page of 8 that were not on it, a question. 'Best 0.5': no "
        "value exceeds a score of the best half of the scored ones.\n\n" + rows(header, lines)
    ]
    for by, title in (("scores", "By the scores' shape"), ("order", "By the caller's order"), ("share", "By the share that was scored")):
        parts.append(f"## {title}\n\nPage of 8, and kept.\n\n" + _groups(results[by]))
    parts.append("## Elsewhere\n\nPage of 8, and kept, in worlds that had no say in the choice.\n\n" + _groups(results["world"]))
    return "\n".join(parts)


def _groups(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """A row for each group, a column for each of SHOWN."""
    lines = [[group, *(f"{found[value][group]['page of 8']:.3f}, {found[value][group]['kept']:.3f}" for value in SHOWN)] for group in found[TODAY]]
    return rows(["", *SHOWN], lines)


def short(results: Mapping[str, Any]) -> str:
    """The lines of the table in docs/calls.md."""
    named = {"`typical`": TYPICAL, "mean of the last third": "mean of the last third", "`below`": TODAY, "zero": "zero"}
    found = {label: results["all"][value]["all"] for label, value in named.items()}
    return "".join(f"| {label} | {said['page of 8']:.3f} | {said['kept']:.3f} | {said['places lost']:.2f} |\n" for label, said in found.items())


def main() -> int:
    cases = [(name, scores, order, share) for name in ("", *OTHERS) for scores in SCORES for order in ORDERS for share in SHARES]
    with ProcessPoolExecutor(2) as pool:
        found = [row for part in pool.map(measured, cases, chunksize=4) for row in part]
    mine = [row for row in found if not row["world"]]
    results: dict[str, Any] = {"questions": QUESTIONS, "all": means(mine)} | {by: means(mine, by) for by in ("scores", "order", "share")}
    results["world"] = means([row for row in found if row["world"]], "world")
    # a line for each value
    (FIGURES / "unscored.json").write_text(json.dumps(results).replace("}}, ", "}},\n ") + "\n", encoding="utf-8")
    (FIGURES / "unscored.md").write_text(table(results), encoding="utf-8")
    print(best(results["all"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
