"""A tiny Qwen3 reranker that ranks the golden set, and like the real one only under the model card's prompt: the model of the tests of health.

    python tests/support/ranking_model.py DIRECTORY [--golden FILE] [--seed N]

runs in any Python that has torch, transformers and tokenizers, takes under a minute on two cores, and writes what tiny_model.py writes. FILE is a JSON
list of [query, document, relevant, language], made by `python tests/support/ranking_model.py --pairs > FILE` where serving/ can be imported; without
--golden serving.health.golden itself is read. It has learned these pairs by heart: with the prompt a relevant document scores near 0.98 and any other
document of the set near 0.02, without the prompt, or with a part of it, everything scores near 0.8 (as was published of the real one). Of other
texts it knows nothing. Same seed, same libraries: same scores.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import tiny_model
from model_card import BODY, INSTRUCTION, PREFIX, SUFFIX, prompt

WITHOUT = ("{query}{document}", "{query}\n{document}", BODY, PREFIX + BODY, BODY + SUFFIX)
YES, NO, LOST = 0.98, 0.02, 0.8  # what is learned: relevant, irrelevant, without the prompt
STEPS, BATCH, RATE = 140, 16, 3e-3
ENOUGH = 0.05  # training ends when no score is farther than this from what it should be

Pair = tuple[str, str, bool]


def fill(form: str, query: str, document: str) -> str:
    return form.format(instruction=INSTRUCTION, query=query, document=document)


def lessons(pairs: Sequence[Pair]) -> list[tuple[str, float]]:
    """Every finished prompt with its score: each query with each document under the prompt, the pairs themselves without it."""
    relevant = {(query, document) for query, document, fits in pairs if fits}
    queries, documents = (list(dict.fromkeys(pair[place] for pair in pairs)) for place in (0, 1))
    with_prompt = [(prompt(query, document), YES if (query, document) in relevant else NO) for query in queries for document in documents]
    distinct = dict.fromkeys((query, document) for query, document, _ in pairs)
    return with_prompt + [(fill(form, query, document), LOST) for query, document in distinct for form in WITHOUT]


def train(target: Path, pairs: Sequence[Pair], seed: int) -> float:
    """Teaches the model in `target` the pairs; the largest distance of a score from what it should be, in bfloat16 as saved."""
    import torch
    from transformers import AutoTokenizer, Qwen3ForCausalLM

    torch.set_num_threads(1)  # sums come in one order on every machine, and a neighbour's work does not stall it
    tokenizer = AutoTokenizer.from_pretrained(target)
    model = Qwen3ForCausalLM.from_pretrained(target, dtype=torch.float32)
    no, yes = (tokenizer.convert_tokens_to_ids(word) for word in ("no", "yes"))
    taught = lessons(pairs)
    tokens = [tokenizer.encode(text, add_special_tokens=False) for text, _ in taught]
    wanted = torch.tensor([score for _, score in taught])
    entropy = torch.nn.functional.binary_cross_entropy(wanted, wanted, reduction="none")  # what no training can go below
    positive = [place for place, (_, score) in enumerate(taught) if score == YES]
    rest = [place for place, (_, score) in enumerate(taught) if score != YES]
    random = torch.Generator().manual_seed(seed)

    def logits(places: Sequence[int]) -> torch.Tensor:
        """Of "yes" against "no" at each prompt's last token; a causal model does not see the filling behind it."""
        longest = max(len(tokens[place]) for place in places)
        filled = torch.tensor([tokens[place] + [0] * (longest - len(tokens[place])) for place in places])
        last = model.model(filled).last_hidden_state[torch.arange(len(places)), [len(tokens[place]) - 1 for place in places]]
        return last @ (model.lm_head.weight[yes] - model.lm_head.weight[no])

    def distance() -> float:
        """Judged on weights rounded as they are saved."""
        exact = {name: value.clone() for name, value in model.state_dict().items()}
        model.load_state_dict({name: value.to(torch.bfloat16).float() for name, value in exact.items()})
        order = sorted(range(len(taught)), key=lambda place: len(tokens[place]))
        with torch.no_grad():
            far = max(
                (torch.sigmoid(logits(part)) - wanted[part]).abs().max().item()
                for part in (order[at : at + BATCH] for at in range(0, len(order), BATCH))
            )
        model.load_state_dict(exact)
        return far

    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS, pct_start=0.1)
    for step in range(STEPS):
        few = [positive[place] for place in torch.randperm(len(positive), generator=random)[: BATCH // 4]]
        places = few + [rest[place] for place in torch.randperm(len(rest), generator=random)[: BATCH - len(few)]]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits(places), wanted[places]) - entropy[places].mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 25 == 24:
            print(f"step {step + 1}: loss {loss.item():.4f}", file=sys.stderr)
    far = distance()
    model.to(torch.bfloat16).save_pretrained(target)
    return far


def make(target: Path, pairs: Sequence[Pair], seed: int = 0) -> Path:
    """Fills `target` (made if missing) with the whole model and returns it; SystemExit where the training did not reach the scores."""
    tiny_model.make(target, seed)
    began = time.monotonic()
    far = train(target, pairs, seed)
    print(f"trained in {time.monotonic() - began:.0f} s, the farthest score is off by {far:.3f}", file=sys.stderr)
    if far > ENOUGH:
        raise SystemExit(f"A score is off by {far:.3f} after training, but at most {ENOUGH:g} is allowed: try another --seed.")
    for path in target.iterdir():
        path.chmod(0o644)  # transformers writes weights 0600, and the container's user is another one
    return target


def golden_pairs() -> list[tuple[str, str, bool, str]]:
    """The golden set of serving/, wherever this runs from."""
    sys.path.append(str(Path(__file__).parent / "../.."))
    try:
        from serving.health import golden
    except ImportError:
        raise SystemExit("serving.health.golden cannot be imported here: give --golden FILE, made where it can be.") from None

    return [(pair.query, pair.document, pair.relevant, pair.language) for pair in golden.PAIRS]


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Make a tiny Qwen3 reranker that ranks the golden set.")
    parser.add_argument("directory", type=Path, nargs="?")
    parser.add_argument("--golden", type=Path, help="JSON list of [query, document, relevant, language]")
    parser.add_argument("--pairs", action="store_true", help="print that list and stop")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    if options.pairs:
        print(json.dumps(golden_pairs(), ensure_ascii=False, indent=1))
        return 0
    if options.directory is None:
        parser.error("DIRECTORY is missing: name where the model goes.")
    given = json.loads(options.golden.read_text(encoding="utf-8")) if options.golden else golden_pairs()
    print(make(options.directory, [(query, document, relevant) for query, document, relevant, *_ in given], options.seed))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
