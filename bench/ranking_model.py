"""A small Qwen3 reranker that ranks English technical text by the words it shares with a query: the model of the quality benchmark.

    python bench/ranking_model.py DIRECTORY [--seed N] [--steps N]

runs in a Python that has torch, transformers and tokenizers, for about four minutes of one core. Its weights are put together to find words that the
query and the document share, and then trained a little. It learns from nothing but the documentation in that Python's standard library: a query is a
sentence of a passage with words left out, or some of its rare words; the passage is relevant, others are not. It writes what a Qwen3-Reranker
repository has, and prints how a held-out part of the library is ranked, beside plain word overlap. It is no substitute for the real model: it knows
words, no meaning. Same seed, same libraries, same Python: same weights.
"""

import argparse
import ast
import json
import math
import pydoc_data.topics
import random
import re
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
import tiny_model

from tests.support import model_card

if TYPE_CHECKING:
    import torch

HIDDEN, LAYERS, HEADS, HEAD_DIM, VOCABULARY = 128, 3, 4, 64, 8192
MATCHING = 2  # heads that look for the same token
CONTENT = 88  # dimensions of the residual stream that say which token it is
GROUP, QUERIES, STEPS, RATE = 8, 4, 120, 5e-4  # documents a query, queries a step
LEFT_OUT = ("test", "tests", "idlelib", "lib2to3", "site-packages", "turtledemo", "__pycache__", "pydoc_data")
HELD_OUT = 8  # every eighth source is for the test


@dataclass(frozen=True)
class Source:
    """The documentation of one module or topic, as words; a passage is a run of them."""

    name: str
    words: tuple[str, ...]


def sources() -> list[Source]:
    """pydoc's topics and the docstrings of the standard library, those long enough for a passage, in order of name."""
    texts = {f"topic {name}": text for name, text in pydoc_data.topics.topics.items()}
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in library.rglob("*.py"):
        if not set(path.relative_to(library).parts) & set(LEFT_OUT):
            texts[str(path.relative_to(library))] = "\n".join(docstrings(path))
    found = (Source(name, tuple(re.findall(r"\S+", text))) for name, text in sorted(texts.items()))
    return [source for source in found if len(source.words) >= 60]


def docstrings(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (text := ast.get_docstring(node)):
            yield f"{getattr(node, 'name', path.stem)}: {text}"


def passages(source: Source, shortest: int, longest: int, chance: random.Random) -> list[str]:
    """The source in passages of so many words; a short rest is dropped."""
    cut, at = [], 0
    while at + shortest <= len(source.words):
        size = chance.randint(shortest, longest)
        cut.append(" ".join(source.words[at : at + size]))
        at += size
    return cut


def key(word: str) -> str:
    return word.strip(".,:;()[]{}\"'`*<>=").lower()


def ask(passage: str, rarity: dict[str, float], chance: random.Random) -> str:
    """A query for the passage: three to seven of its rarer words, or four to ten words in a row of which some are left out."""
    words = [word for word in map(key, passage.split()) if re.fullmatch(r"[a-z][\w.-]{2,}", word)]
    if not words:
        return passage[:60]
    if chance.random() < 0.5:
        rare = sorted(dict.fromkeys(words), key=lambda word: -rarity.get(word, 0.0))[:30]
        return " ".join(chance.sample(rare, min(len(rare), chance.randint(3, 7))))
    at = chance.randrange(max(1, len(words) - 14))
    return " ".join(word for word in words[at : at + 14] if chance.random() < 0.6) or words[at]


def overlap(query: str, document: str, rarity: dict[str, float]) -> float:
    """Rarity of the query's words that the document has."""
    held = set(map(key, document.split()))
    return sum(rarity.get(word, 0.0) for word in set(query.split()) if word in held)


def rarities(texts: Sequence[str]) -> dict[str, float]:
    counted = Counter(word for text in texts for word in set(map(key, text.split())))
    return {word: math.log(len(texts) / count) for word, count in counted.items()}


def model_files(target: Path, seed: int, rarity: dict[str, float]) -> None:
    """Weights that find shared words before any training: what a training of minutes would not find, it only has to refine.

    Layer 0 marks what stands behind "<Query>" and "<Document>"; in layer 1 a document's token looks for itself in the query, and the MLP multiplies what
    it found by the token's rarity; in layer 2 the last token sums that up. All else begins at random, without effect.
    """
    import torch
    from transformers import AutoTokenizer, Qwen3ForCausalLM

    tokens = AutoTokenizer.from_pretrained(target)
    config = tiny_model.config_of(
        target,
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        head_dim=HEAD_DIM,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(config)
    # Dimensions of the residual stream: what a token is, then one for each of these.
    constant, query_mark, document_mark, sink, rare, in_query, in_document, found, worth, sum_up = range(CONTENT, CONTENT + 10)
    # The slowest rotary dimensions hardly turn within a prompt, so what they hold does not depend on the distance.
    still = [dim for half in (0, HEAD_DIM // 2) for dim in range(half + 20, half + HEAD_DIM // 2)]
    marks = {"<Query": query_mark, "<Document": document_mark}
    with torch.no_grad():
        embedding = model.model.embed_tokens.weight
        embedding.zero_()
        embedding[:, :CONTENT] = torch.randn(VOCABULARY, CONTENT)
        embedding[:, constant] = 4.0
        for token, number in tokens.get_vocab().items():
            word = tokens.convert_tokens_to_string([token]).strip()
            # a piece of a word is taken for rarer than most words
            embedding[number, rare] = min(4.0, rarity.get(word.lower(), 3.0)) if word.isalnum() else 0.0
        for text, dim in marks.items():
            embedding[tokens.encode(text, add_special_tokens=False)[-1], dim] = 12.0
        embedding[tokens.convert_tokens_to_ids("<|im_start|>"), sink] = 12.0
        yes, no = (tokens.convert_tokens_to_ids(word) for word in ("yes", "no"))
        embedding[yes] = embedding[no]
        embedding[yes, sum_up], embedding[no, sum_up], embedding[no, constant] = 0.75, -0.75, 4.75

        for layer in model.model.layers:
            attention, mlp = layer.self_attn, layer.mlp
            for part in (attention.o_proj, mlp.down_proj):
                part.weight.zero_()
        first, second, third = model.model.layers
        for head, (mark, flag) in enumerate(((query_mark, in_query), (document_mark, in_document))):
            attention, at = first.self_attn, head * HEAD_DIM
            for part in (attention.q_proj, attention.k_proj, attention.v_proj):
                part.weight[at : at + HEAD_DIM] = 0
            one, other = at + still[-1], at + still[-2]
            attention.q_proj.weight[one, constant] = 1.0
            attention.k_proj.weight[one, mark] = 1.0
            attention.k_proj.weight[other, constant] = 0.3
            attention.v_proj.weight[at, mark] = 0.5
            attention.o_proj.weight[flag, at] = 1.0
        first.self_attn.q_norm.weight.fill_(1.5)

        attention = second.self_attn
        for head in range(MATCHING):
            at = head * HEAD_DIM
            for part in (attention.q_proj, attention.k_proj, attention.v_proj):
                part.weight[at : at + HEAD_DIM] = 0
            same = torch.randn(len(still) - 1, CONTENT) * CONTENT**-0.5
            for part in (attention.q_proj, attention.k_proj):
                for row, dim in enumerate(still[:-1]):
                    part.weight[at + dim, :CONTENT] = same[row]
            attention.q_proj.weight[at + still[-1], constant] = 1.0
            attention.k_proj.weight[at + still[-1], in_query] = 1.0
            attention.k_proj.weight[at + still[-1], in_document] = -1.0
            attention.v_proj.weight[at, in_query] = 0.25
            attention.v_proj.weight[at, in_document] = -0.25
            attention.o_proj.weight[found, at] = 1.0
        second.self_attn.q_norm.weight.fill_(3.0)
        # in the document, found, times rarity: silu(z) is z where z is large, 0 where it is very negative
        second.mlp.gate_proj.weight[0] = 0
        second.mlp.up_proj.weight[0] = 0
        second.mlp.gate_proj.weight[0, found] = 6.0
        second.mlp.gate_proj.weight[0, in_document] = 3.0
        second.mlp.gate_proj.weight[0, constant] = -5.4
        second.mlp.up_proj.weight[0, rare] = 1.0
        second.mlp.down_proj.weight[worth, 0] = 1.0

        attention = third.self_attn
        for part in (attention.q_proj, attention.k_proj, attention.v_proj):
            part.weight[:HEAD_DIM] = 0
        one, other = still[-1], still[-2]
        attention.q_proj.weight[one, constant] = 1.0
        attention.k_proj.weight[one, worth] = 1.0
        attention.k_proj.weight[one, sink] = 1.0
        attention.k_proj.weight[other, constant] = 0.5
        attention.v_proj.weight[0, worth] = 1.0
        attention.o_proj.weight[sum_up, 0] = 1.0
        third.self_attn.q_norm.weight.fill_(1.5)
    model.save_pretrained(target)


class Scorer:
    """The model while it learns: logits of "yes" against "no" under the model card's prompt."""

    def __init__(self, directory: Path) -> None:
        import torch
        from transformers import AutoTokenizer, Qwen3ForCausalLM

        self.torch = torch
        self.tokenizer = AutoTokenizer.from_pretrained(directory)
        self.model = Qwen3ForCausalLM.from_pretrained(directory, dtype=torch.float32)
        self.no, self.yes = (self.tokenizer.convert_tokens_to_ids(word) for word in ("no", "yes"))

    def logits(self, pairs: Sequence[tuple[str, str]]) -> "torch.Tensor":
        """A causal model does not see the filling behind a prompt."""
        tokens = self.tokenizer([model_card.prompt(query, document) for query, document in pairs], add_special_tokens=False)["input_ids"]
        longest = max(map(len, tokens))
        filled = self.torch.tensor([ids + [0] * (longest - len(ids)) for ids in tokens])
        last = self.model.model(filled).last_hidden_state[self.torch.arange(len(tokens)), [len(ids) - 1 for ids in tokens]]
        return last @ (self.model.lm_head.weight[self.yes] - self.model.lm_head.weight[self.no])

    def ranked(self, query: str, documents: Sequence[str]) -> list[float]:
        with self.torch.no_grad():
            return [
                score for at in range(0, len(documents), 11) for score in self.logits([(query, text) for text in documents[at : at + 11]]).tolist()
            ]


def train(scorer: Scorer, learned: Sequence[Source], rarity: dict[str, float], seed: int, steps: int) -> None:
    """Each query has its passage, a neighbour of it and others, as one choice and as pairs for themselves."""
    torch, chance = scorer.torch, random.Random(seed)
    optimizer = torch.optim.AdamW(scorer.model.parameters(), lr=RATE, weight_decay=0.01, betas=(0.9, 0.98))
    seen = []
    for step in range(steps):
        spent = step / steps
        # passages grow while it learns, since short ones teach more in the same time
        longest = 60 if spent < 0.4 else 120 if spent < 0.8 else 260
        rate = RATE * min(1.0, (step + 1) / 30) * min(1.0, (1 - spent) / 0.5 + 0.02)
        optimizer.param_groups[0]["lr"] = rate
        cut = [found for source in chance.sample(learned, 24) if len(found := passages(source, 20, longest, chance)) > 1]
        pairs = []
        for _ in range(QUERIES):
            place = chance.randrange(len(cut))
            right, neighbour = chance.sample(cut[place], 2)
            others = [chance.choice(chance.choice(cut)) for _ in range(GROUP - 2)]
            query = ask(right, rarity, chance)
            pairs += [(query, text) for text in (right, neighbour, *others)]
        logits = scorer.logits(pairs).view(QUERIES, GROUP)
        wanted = torch.zeros(QUERIES, GROUP)
        wanted[:, 0] = 1
        choice = torch.nn.functional.cross_entropy(logits, torch.zeros(QUERIES, dtype=torch.long))
        alone = torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted, pos_weight=torch.tensor(3.0))
        optimizer.zero_grad()
        (choice + 0.5 * alone).backward()
        torch.nn.utils.clip_grad_norm_(scorer.model.parameters(), 1.0)
        optimizer.step()
        seen.append(choice.item())
        if step % 25 == 24:
            print(
                f"step {step + 1}: choice {sum(seen[-25:]) / 25:.3f} (by chance {math.log(GROUP):.3f})",
                file=sys.stderr,
                flush=True,
            )


def held_out_set(tested: Sequence[Source], rarity: dict[str, float], seed: int, queries: int, documents: int = 66) -> list[tuple[str, list[str]]]:
    """Queries, each with documents of 60 to 330 words of which the first is the relevant one."""
    chance = random.Random(seed + 1)
    pool = [text for source in tested for text in passages(source, 60, 330, chance)]
    made = []
    for _ in range(queries):
        chosen = chance.sample(pool, documents)
        made.append((ask(chosen[0], rarity, chance), chosen))
    return made


def quality(places: Sequence[int]) -> dict[str, float]:
    """Of the relevant documents' places, counted from 0."""
    return {
        "first": sum(place == 0 for place in places) / len(places),
        "in top 8": sum(place < 8 for place in places) / len(places),
        "mean reciprocal rank": round(sum(1 / (place + 1) for place in places) / len(places), 3),
    }


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Make a small Qwen3 reranker that ranks by shared words.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS, help="of training; 0: the weights as they were put together")
    parser.add_argument("--queries", type=int, default=24, help="held-out queries, 66 documents each")
    options = parser.parse_args(argv)
    import torch

    torch.set_num_threads(1)  # sums come in one order on every machine, and a neighbour's work does not stall it
    found = sources()
    learned = [source for place, source in enumerate(found) if place % HELD_OUT]
    tested = [source for place, source in enumerate(found) if not place % HELD_OUT]
    chance = random.Random(options.seed)
    texts = [text for source in learned for text in passages(source, 60, 120, chance)]
    rarity = rarities(texts)
    print(f"{len(learned)} sources to learn from, {len(tested)} held out, {sum(len(source.words) for source in found)} words", file=sys.stderr)

    target = options.directory
    target.mkdir(parents=True, exist_ok=True)
    tiny_model.CORPUS, tiny_model.VOCABULARY = tiny_model.CORPUS + "\n".join(texts), VOCABULARY
    tiny_model.tokenizer_files(target)
    model_files(target, options.seed, rarity)
    scorer = Scorer(target)
    train(scorer, learned, rarity, options.seed, options.steps)
    scorer.model.to(torch.bfloat16).save_pretrained(target)
    for path in target.iterdir():
        path.chmod(0o644)  # transformers writes weights 0600, and the container's user is another one

    scorer.model.float()  # as saved: rounded to bfloat16
    places: dict[str, list[int]] = {"model": [], "word overlap": []}
    for query, documents in held_out_set(tested, rarity, options.seed, options.queries):
        scores = {"model": scorer.ranked(query, documents), "word overlap": [overlap(query, text, rarity) for text in documents]}
        for name, found_scores in scores.items():
            places[name].append(sum(score > found_scores[0] for score in found_scores[1:]))
    print(json.dumps({"queries": options.queries, "documents": 66} | {name: quality(found_places) for name, found_places in places.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
