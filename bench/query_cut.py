"""Which part of a query that is too long is worth keeping: its beginning, its end, or half of each. Figures in bench/figures/query_cut.json, run by hand:

    python -m bench.query_cut MODEL > bench/figures/query_cut.json

MODEL is the folder of a sentence-embedding model (a BERT, mean pooling, such as all-MiniLM-L6-v2); needs torch and transformers, as vLLM's image has them.

A question of twelve words of a passage stands at one place in text that is about something else and four times as long as the cut leaves; the passage is
looked for among 65 others by the embedding of what is left of the query. Lengths are scaled to what the embedding model reads.
"""

import json
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer

from bench import ranking_model

LEFT_TOKENS = 64
CANDIDATES, FIRST = 66, 6
QUERIES = 80
QUESTION_WORDS = 12
PLACES = {"at the beginning": 0.0, "a quarter in": 0.25, "in the middle": 0.5, "three quarters in": 0.75, "at the end": 1.0}

Ids = list[int]
WAYS: dict[str, Callable[[Ids], Ids]] = {
    "beginning": lambda ids: ids[:LEFT_TOKENS],
    "end": lambda ids: ids[-LEFT_TOKENS:],
    "half of each": lambda ids: ids[: LEFT_TOKENS // 2] + ids[-LEFT_TOKENS // 2 :],
}


class Embedding:
    """Unit vectors of texts."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(folder).eval()

    def ids(self, text: str) -> Ids:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        torch.set_grad_enabled(False)
        rows = []
        for start in range(0, len(texts), 32):
            batch = self.tokenizer(list(texts[start : start + 32]), padding=True, truncation=True, max_length=256, return_tensors="pt")
            states = self.model(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1)
            rows.append(torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1))
        return torch.cat(rows)


def main(folder: Path) -> None:
    chance = random.Random(8)
    embed = Embedding(folder)
    sources = ranking_model.sources()
    passages = [passage for source in sources for passage in ranking_model.passages(source, 60, 120, chance)]
    chance.shuffle(passages)
    pool = passages[: 4 * CANDIDATES]
    vectors = embed(pool)
    found: dict[str, dict[str, int]] = {place: dict.fromkeys(WAYS, 0) for place in PLACES}
    for number in range(QUERIES):
        words = pool[number].split()
        at = chance.randrange(len(words) - QUESTION_WORDS)
        question = " ".join(words[at : at + QUESTION_WORDS])
        others = chance.sample([index for index in range(len(pool)) if index != number], CANDIDATES - 1)
        filling = " ".join(chance.sample(passages[len(pool) :], 8)).split()[: 3 * LEFT_TOKENS]
        for place, share in PLACES.items():
            seam = round(share * len(filling))
            ids = embed.ids(" ".join([*filling[:seam], question, *filling[seam:]]))
            left = embed([embed.tokenizer.decode(way(ids)) for way in WAYS.values()])
            for name, row in zip(WAYS, left, strict=True):
                right = float(row @ vectors[number])
                found[place][name] += sum(float(row @ vectors[other]) > right for other in others) < FIRST
    recall = {place: {name: round(count / QUERIES, 3) for name, count in row.items()} for place, row in found.items()}
    json.dump({"queries": QUERIES, "candidates": CANDIDATES, "first": FIRST, "tokens left": LEFT_TOKENS, "recall": recall}, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
