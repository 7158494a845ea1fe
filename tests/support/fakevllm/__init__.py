"""A stand-in for vLLM and its model, so that every image strategy and model source goes from the first build to a healthy container in seconds.

It is no vLLM: server.py takes vLLM's arguments and serves the mock, the model has no weights worth the name. tests/vllm has the real ones.
"""

import json
import os
import secrets
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.engine import docker

HERE = Path(__file__).parent
REPO = "stand-in/Tiny-Reranker"
SLUG = "tiny-reranker"
REVISION = "5ca1ab1e0ddba11f00d5eed5deadbea7cafef00d"
# What the launcher asks of the machine: 1 GiB of KV cache, and what vLLM itself takes.
SIZED = {
    "cpus": 1,
    "memoryGiB": 4,
    "shmGiB": 1,
    "kvCacheGiB": 1,
    "maxModelLen": 1024,
    "maxQueryTokens": 512,
    "model": REPO,
    "modelRevision": REVISION,
}


@dataclass(frozen=True)
class Clone:
    """A folder that looks like a clone of vLLM, at a version that nothing else has; its image is `tag`."""

    folder: Path
    version: str

    @property
    def tag(self) -> str:
        return f"vllm-cpu:{self.version}"

    @property
    def dials(self) -> dict[str, object]:
        return {
            "backend": "cpu",
            "baseImage": None,
            "imageStrategy": "source",
            "sourceContext": str(self.folder),
            "vllmVersion": self.version,
            **SIZED,
        }

    def change(self) -> None:
        with (self.folder / "server.py").open("a", encoding="utf-8") as file:
            file.write(f"# changed {secrets.token_hex(4)}\n")


@contextmanager
def clone(folder: Path, base: str) -> Iterator[Clone]:
    """A clone in `folder` (made here) on the base image; its image is removed at the end."""
    (folder / "docker").mkdir(parents=True)
    shutil.copy2(HERE / "server.py", folder)
    recipe = (HERE / "docker" / "Dockerfile.cpu").read_text(encoding="utf-8")
    (folder / "docker" / "Dockerfile.cpu").write_text(recipe.replace("ARG BASE=ragflow-reranker-base:2", f"ARG BASE={base}"), encoding="utf-8")
    made = Clone(folder, f"0.0.{secrets.randbelow(10**9)}")
    try:
        yield made
    finally:
        docker("image", "rm", made.tag, check=False)


def model(folder: Path, *, mib: int = 0) -> Path:
    """Fills `folder` (made if missing) with the files of a Qwen3-Reranker repository: `mib` MiB of random bytes for weights, readable by all."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "dtype": "bfloat16", "num_hidden_layers": 2, "hidden_size": 128,
        "intermediate_size": 384, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 1024,
        "max_position_embeddings": 40960, "tie_word_embeddings": True,
    }  # fmt: skip
    texts = {"config.json": config, "tokenizer.json": {"version": "1.0"}, "tokenizer_config.json": {"tokenizer_class": "Qwen2Tokenizer"}}
    for name, content in texts.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    weights = os.urandom((mib << 20) or 256)
    header = json.dumps({"model.embed_tokens.weight": {"dtype": "BF16", "shape": [len(weights) // 2], "data_offsets": [0, len(weights)]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + weights)
    folder.chmod(0o755)
    for path in folder.iterdir():
        path.chmod(0o644)
    return folder
