"""A model directory: what its config.json says, and whether it is whole and readable."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from serving.memory import BYTES_PER_VALUE, Footprint, tied_copy

MANIFEST = "reranker-manifest.json"
# Qwen3-Reranker as it is published, and converted to a classifier.
ORIGINAL, CONVERTED = "Qwen3ForCausalLM", "Qwen3ForSequenceClassification"


class BadModel(Exception):
    """A model directory that must not be served; its text is one sentence with the remedy."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """Numbers of one Qwen3 model's config.json, and the bytes of its weight files."""

    directory: str
    architecture: str
    weight_bytes: int
    weight_dtype: str
    layers: int
    kv_heads: int
    head_dim: int
    max_positions: int
    vocabulary: int
    hidden: int
    tied: bool  # the embedding is the output head as well, and once in the files

    @property
    def footprint(self) -> Footprint:
        return Footprint(
            weights=self.weight_bytes // BYTES_PER_VALUE[self.weight_dtype],
            packed=tied_copy(self.vocabulary, self.hidden, self.tied),
            kv_a_token=2 * self.layers * self.kv_heads * self.head_dim,
        )


def weight_files(directory: Path) -> list[Path]:
    """The weights at the top of a model directory, without the dot files that macOS leaves beside them (._model.safetensors)."""
    return sorted(path for path in directory.glob("*.safetensors") if not path.name.startswith("."))


def require_files(directory: Path, *, verified: bool) -> None:
    """BadModel where the directory lacks files, holds files of another size than its manifest says, or files that this user cannot read.

    `verified` demands the manifest that the population step writes last; without, the files that every model has are asked for.
    """
    if not os.access(directory, os.R_OK | os.X_OK):
        raise BadModel(
            f"The model directory {directory} is missing or closed to user {os.getuid()}; it must exist and be readable: "
            "run pulumi up, or chmod -R a+rX the directory of modelPath."
        )
    if verified:
        files = _manifest_files(directory)
    else:
        weights = [path.name for path in weight_files(directory)]
        files = [(name, None) for name in ["config.json", "tokenizer.json", *weights]]
        if not weights:
            raise BadModel(f"The model directory {directory} has no *.safetensors file; it must hold the weights of a Qwen3-Reranker.")
    for name, size in files:
        path = directory / name
        if not path.is_file():
            raise BadModel(f"The model file {path} is missing; run pulumi up to complete the model.")
        if size is not None and path.stat().st_size != size:
            raise BadModel(
                f"The model file {path} has {path.stat().st_size} bytes but must have {size}; remove it and run pulumi up to download it again."
            )
        if not os.access(path, os.R_OK):
            raise BadModel(f"The model file {path} cannot be read by user {os.getuid()}; it must be readable by all: chmod a+r it.")


def _manifest_files(directory: Path) -> list[tuple[str, int | None]]:
    path = directory / MANIFEST
    if not path.is_file():
        raise BadModel(
            f"The model directory {directory} has no {MANIFEST}, which is written when the model is complete; run pulumi up to complete it."
        )
    try:
        return [(entry["path"], int(entry["size"])) for entry in json.loads(path.read_text(encoding="utf-8"))["files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadModel(
            f"The manifest {path} cannot be read ({type(error).__name__}: {error}); remove it and run pulumi up to check the model again."
        ) from error


def read_model(directory: Path) -> Model:
    """The model's numbers; BadModel where config.json is missing, is no JSON or lacks one of them."""
    path = directory / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        dtype = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16").removeprefix("torch.")
        if dtype not in BYTES_PER_VALUE:
            raise BadModel(
                f"The model {directory} is stored as {dtype}; its config.json must say one of {', '.join(BYTES_PER_VALUE)}: "
                "take the original Qwen3-Reranker weights."
            )
        return Model(
            directory=str(directory),
            architecture=str(config["architectures"][0]),
            weight_dtype=dtype,
            weight_bytes=sum(file.stat().st_size for file in weight_files(directory)),
            layers=int(config["num_hidden_layers"]),
            kv_heads=int(config["num_key_value_heads"]),
            head_dim=int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]),
            max_positions=int(config["max_position_embeddings"]),
            vocabulary=int(config["vocab_size"]),
            hidden=int(config["hidden_size"]),
            tied=bool(config.get("tie_word_embeddings", False)),
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise BadModel(
            f"The model's {path} cannot be used ({type(error).__name__}: {error}); it must be the config.json of a Qwen3-Reranker."
        ) from error
