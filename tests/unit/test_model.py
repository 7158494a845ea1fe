"""What a model directory must be, and the numbers of its config.json."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serving.model import MANIFEST, BadModel, read_model, require_files

CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "dtype": "bfloat16",
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "num_attention_heads": 16,
    "hidden_size": 1024,
    "max_position_embeddings": 40960,
    "vocab_size": 151669,
    "tie_word_embeddings": True,
}


def model(directory: Path, *, manifest: bool = True, **changes: Any) -> Path:
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(CONFIG | changes))
    (directory / "tokenizer.json").write_text("{}")
    (directory / "model.safetensors").write_bytes(b"x" * 100)
    if manifest:
        files = [{"path": path.name, "size": path.stat().st_size, "sha256": "0" * 64} for path in sorted(directory.iterdir())]
        (directory / MANIFEST).write_text(json.dumps({"repo": "Qwen/Qwen3-Reranker-0.6B", "revision": "0" * 40, "source": "hub", "files": files}))
    return directory


def test_the_models_numbers_give_its_memory(tmp_path: Path) -> None:
    found = read_model(model(tmp_path / "m"))
    # 100 bytes of weights in the files, and the second embedding
    packed = 151669 * 1024
    assert (found.footprint.weight_bytes("bfloat16"), found.footprint.weight_bytes("float32")) == (100 + 2 * packed, 200 + 4 * packed)
    assert replace(found, tied=False).footprint.weight_bytes("bfloat16") == 100
    # 112 KiB a token in bfloat16, 224 KiB in float32
    assert (found.footprint.block_bytes("bfloat16", 1), found.footprint.block_bytes("float32", 1)) == (112 * 1024, 224 * 1024)


def test_weights_stored_in_float32_take_half_the_memory_in_bfloat16(tmp_path: Path) -> None:
    found = read_model(model(tmp_path / "m", dtype="float32", tie_word_embeddings=False))
    assert (found.footprint.weight_bytes("bfloat16"), found.footprint.weight_bytes("float32")) == (50, 100)


def test_older_configs_say_torch_dtype_and_may_lack_head_dim(tmp_path: Path) -> None:
    found = read_model(model(tmp_path / "m", dtype=None, torch_dtype="float32", head_dim=None))
    assert (found.weight_dtype, found.head_dim) == ("float32", 64)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "int8"}, "is stored as int8"),
        ({"num_hidden_layers": "many"}, "ValueError"),
        ({"architectures": []}, "IndexError"),
        ({"architectures": None}, "TypeError"),
    ],
)
def test_a_config_that_is_no_qwen3_rerankers_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    directory = model(tmp_path / "m", **changes)
    with pytest.raises(BadModel, match=message):
        read_model(directory)


def test_a_complete_model_passes_with_and_without_a_manifest(tmp_path: Path) -> None:
    require_files(model(tmp_path / "verified"), verified=True)
    require_files(model(tmp_path / "own", manifest=False), verified=False)


def _truncate(directory: Path) -> None:
    (directory / "model.safetensors").write_bytes(b"x" * 99)


@pytest.mark.parametrize(
    ("damage", "verified", "message"),
    [
        (lambda d: (d / MANIFEST).unlink(), True, r"no reranker-manifest.json, which is written when the model is complete; run pulumi up"),
        (lambda d: (d / MANIFEST).write_text("{"), True, r"manifest .* cannot be read \(JSONDecodeError"),
        (lambda d: (d / MANIFEST).write_text('{"files": [{"path": "x"}]}'), True, r"manifest .* cannot be read \(KeyError"),
        (_truncate, True, r"model.safetensors has 99 bytes but must have 100; remove it and run pulumi up"),
        (lambda d: (d / "tokenizer.json").unlink(), True, r"tokenizer.json is missing; run pulumi up"),
        (lambda d: (d / "tokenizer.json").unlink(), False, r"tokenizer.json is missing"),
        (lambda d: (d / "model.safetensors").unlink(), False, r"no \*.safetensors file"),
        (lambda d: [*map(Path.unlink, d.iterdir()), d.rmdir()], True, r"is missing or closed to user"),
    ],
)
def test_an_incomplete_model_is_refused_in_one_sentence(tmp_path: Path, damage: Callable[[Path], object], verified: bool, message: str) -> None:
    directory = model(tmp_path / "m")
    damage(directory)
    with pytest.raises(BadModel, match=message) as refusal:
        require_files(directory, verified=verified)
    assert "\n" not in str(refusal.value)


def test_a_weight_file_that_the_containers_user_cannot_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = model(tmp_path / "m")
    (directory / "model.safetensors").chmod(0o600)
    # Tests run as root, who may read everything: ask as the others would.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).is_dir() or bool(Path(path).stat().st_mode & 0o004))
    with pytest.raises(BadModel, match=r"model.safetensors cannot be read by user \d+; it must be readable by all: chmod a\+r it"):
        require_files(directory, verified=True)
