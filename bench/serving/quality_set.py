"""Runs inside the image: held-out queries with 66 documents each, in three orders, and the documents' lengths in the model's tokens. Prints one line of JSON.

python3 -m bench.serving.quality_set MODEL QUERIES
"""

import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))
from bench import ranking_model


def _by_overlap(query: str, documents: Sequence[str], rarity: dict[str, float]) -> list[int]:
    return sorted(range(len(documents)), key=lambda at: -ranking_model.overlap(query, documents[at], rarity))


def main(model: Path, queries: int) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    found = ranking_model.sources()
    learned = [source for place, source in enumerate(found) if place % ranking_model.HELD_OUT]
    tested = [source for place, source in enumerate(found) if not place % ranking_model.HELD_OUT]
    chance = random.Random(0)
    rarity = ranking_model.rarities([text for source in learned for text in ranking_model.passages(source, 60, 120, chance)])
    made = []
    for query, documents in ranking_model.held_out_set(tested, rarity, 7, queries):
        relevant = documents[0]
        chance.shuffle(documents)  # the caller's order says nothing
        words = query.split()
        some = " ".join(chance.sample(words, max(1, len(words) // 3)))  # a first stage that is good, and one that is not
        orders = {"best first": _by_overlap(query, documents, rarity), "roughly best first": _by_overlap(some, documents, rarity)}
        lengths = [len(tokenizer.encode(f" {text}").ids) for text in documents]
        made.append(
            {
                "query": query,
                "documents": documents,
                "lengths": lengths,
                "orders": {**orders, "random": list(range(len(documents)))},
                "relevant": documents.index(relevant),
            }
        )
    print(json.dumps(made))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
