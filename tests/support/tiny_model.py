"""A tiny Qwen3 reranker made on the spot: random weights in Qwen3's shape, a tokenizer trained on the corpus below. Nothing is downloaded.

    python tests/support/tiny_model.py DIRECTORY [--seed N]

runs in any Python that has torch, transformers and tokenizers, writes the files that a Qwen3-Reranker repository has, readable by all, and prints
the directory. Same seed, same libraries: same bytes. The weights know nothing: scores differ from pair to pair and can be compared with a reference
(`reference_scores`), but they do not tell relevant from irrelevant.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, VOCABULARY = 128, 2, 4, 2, 64, 1024
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
ADDED = ("<think>", "</think>")  # Qwen3 has them in the vocabulary, yet not as special tokens
# Qwen's own split of text into words, before byte-level BPE.
SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CORPUS = """
Judge whether the Document meets the requirements based on the Query and the Instruct provided. Note that the answer can only be "yes" or "no".
<Instruct>: Given a web search query, retrieve relevant passages that answer the query
<Query>: What is the capital of China?
<Document>: The capital of China is Beijing, a city of more than twenty million people in the north of the country.
<Query>: How do I raise the memory limit of a container?
<Document>: Set the limit when the container is created; a running container keeps the limit until it is updated.
<Document>: Apples are red, green or yellow, and they ripen in autumn.
<Query>: 如何在本地部署重排序模型？
<Document>: 重排序模型可以在没有显卡的机器上运行，文档按照与查询的相关性排序。
<Document>: 北京是中国的首都，位于华北平原的北部。
system user assistant
yes no yes no yes no yes no
"""


def tokenizer_files(target: Path) -> None:
    """Trains the tokenizer and writes tokenizer.json, tokenizer_config.json, vocab.json and merges.txt."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(SPLIT), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL) - len(ADDED),
        min_frequency=1,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    # "yes" and "no" must be whole words of the vocabulary: vLLM reads the classifier's rows off their ids.
    tokenizer.train_from_iterator([line for line in CORPUS.strip().split("\n")] + ["yes", "no"] * 50, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in ADDED])
    for word in ("yes", "no", *SPECIAL, *ADDED):
        if len(tokenizer.encode(word).ids) != 1:
            raise SystemExit(f"The tokenizer splits {word!r}, which must be one token: the corpus has too little of it.")

    tokenizer.save(str(target / "tokenizer.json"))
    tokenizer.model.save(str(target))
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "model_max_length": 131072,
        "add_prefix_space": False,
        "add_bos_token": False,
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "errors": "replace",
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": False,
        "additional_special_tokens": list(SPECIAL[1:]),
        "added_tokens_decoder": {
            str(tokenizer.token_to_id(token)): {
                "content": token,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": token in SPECIAL,
            }
            for token in SPECIAL + ADDED
        },
    }
    (target / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def config_of(target: Path, **shape: Any) -> Any:
    """Qwen3Config of a reranker with the tokenizer in `target`; `shape`: its other fields."""
    from transformers import AutoTokenizer, Qwen3Config

    tokens = AutoTokenizer.from_pretrained(target)
    ends = {name: tokens.convert_tokens_to_ids(token) for name, token in (("bos_token_id", "<|endoftext|>"), ("eos_token_id", "<|im_end|>"))}
    return Qwen3Config(max_position_embeddings=40960, **ends, **shape)


def weight_files(target: Path, seed: int) -> None:
    """Writes config.json, generation_config.json and model.safetensors (bfloat16, as the published weights are)."""
    import torch
    from transformers import Qwen3ForCausalLM

    config = config_of(
        target,
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=3 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=HEAD_DIM,
        tie_word_embeddings=True,
        initializer_range=0.1,  # five times the usual: with less, every score is 0.5
    )
    torch.manual_seed(seed)
    Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(target)


def reference_scores(directory: Path, prompts: list[str]) -> list[float]:
    """The model card's score of each finished prompt, by transformers in float32: softmax over the logits of "no" and "yes" at the last token."""
    import torch
    from transformers import AutoTokenizer, Qwen3ForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = Qwen3ForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    no, yes = (tokenizer.convert_tokens_to_ids(word) for word in ("no", "yes"))
    scores = []
    for prompt in prompts:
        with torch.no_grad():
            last = model(torch.tensor([tokenizer.encode(prompt, add_special_tokens=False)])).logits[0, -1]
        scores.append(torch.softmax(last[[no, yes]], dim=0)[1].item())
    return scores


def make(target: Path, seed: int = 0) -> Path:
    """Fills `target` (made if missing) with the whole model and returns it."""
    target.mkdir(parents=True, exist_ok=True)
    tokenizer_files(target)
    weight_files(target, seed)
    for path in target.iterdir():
        path.chmod(0o644)  # transformers writes weights 0600, and the container's user is another one
    return target


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Make a tiny Qwen3 reranker with random weights.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    print(make(options.directory, options.seed))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
