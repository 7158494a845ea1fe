"""Runs inside the image: models with random weights, and real text in documents of a given length, into the folder of the argument. Nothing is downloaded.

    python3 -m bench.serving.prepare /models

q06 has the shape of Qwen3-Reranker-0.6B, tiny costs next to nothing; both read with one tokenizer, trained on the text: the docstrings of the standard
library of the image's Python. texts.json: documents of DOCUMENT_TOKENS or a few tokens less, and sentences to ask with.
"""

import itertools
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))
import tiny_model

from bench import ranking_model
from serving.memory import KNOWN_MODELS

DOCUMENT_TOKENS = 512
VOCABULARY = 8192
QUERY_WORDS = 9
SLUG = "qwen3-reranker-0.6b"


def weights(target: Path) -> None:
    import torch
    from transformers import Qwen3ForCausalLM

    shape = KNOWN_MODELS[SLUG]
    config = tiny_model.config_of(
        target,
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        tie_word_embeddings=shape.tied,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
    )
    torch.manual_seed(0)
    Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(target)


def texts(target: Path) -> dict[str, list[str]]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(target / "tokenizer.json"))
    words = [word for source in ranking_model.sources() for word in source.words]
    encoded = tokenizer.encode(" ".join(words))
    cut = [encoded.offsets[at][0] for at in range(0, len(encoded.ids) - DOCUMENT_TOKENS, DOCUMENT_TOKENS)]
    joined = " ".join(words)
    documents = [joined[start:end].strip() for start, end in itertools.pairwise(cut)]
    queries = [" ".join(words[at : at + QUERY_WORDS]) for at in range(0, len(words) - QUERY_WORDS, 7 * QUERY_WORDS)]
    return {"documents": documents, "queries": queries}


def main(folder: Path) -> None:
    corpus = "\n".join(" ".join(source.words) for source in ranking_model.sources())
    tiny_model.CORPUS, tiny_model.VOCABULARY = tiny_model.CORPUS + corpus, VOCABULARY
    for name, fill in (("tiny", lambda path: tiny_model.weight_files(path, 0)), (SLUG, weights)):
        target = folder / name
        target.mkdir()
        tiny_model.tokenizer_files(target)
        fill(target)
    made = texts(folder / SLUG)
    (folder / "texts.json").write_text(json.dumps(made))
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)  # transformers writes weights 0600, and the container's user is another one
    print(f"{len(made['documents'])} documents, {len(made['queries'])} queries", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
