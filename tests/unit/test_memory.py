"""serving/memory.py against the models' config.json, summed here tensor by tensor."""

import json
from pathlib import Path

import pytest

from serving import memory
from serving.model import read_model

GIB = 1024**3
KIB = 1024
# layers, hidden, intermediate, heads of each model's config.json; all have 8 KV heads of 128 and a vocabulary of 151669
CONFIGS = {"0.6b": (28, 1024, 3072, 16), "4b": (36, 2560, 9728, 32), "8b": (36, 4096, 12288, 32)}


def tensors(size: str) -> dict[str, int]:
    """Values in each kind of tensor of a checkpoint, norms apart."""
    layers, hidden, intermediate, heads = CONFIGS[size]
    return {
        "embed_tokens": 151669 * hidden,
        "q_proj": layers * hidden * heads * 128,
        "k_proj": layers * hidden * 8 * 128,
        "v_proj": layers * hidden * 8 * 128,
        "o_proj": layers * heads * 128 * hidden,
        "gate_proj": layers * hidden * intermediate,
        "up_proj": layers * hidden * intermediate,
        "down_proj": layers * intermediate * hidden,
    }


def norms(size: str) -> int:
    """input, post-attention, q and k norms of each layer, and the last one."""
    layers, hidden, _, _ = CONFIGS[size]
    return layers * (2 * hidden + 2 * 128) + hidden


@pytest.mark.parametrize("size", CONFIGS)
def test_the_parameters_are_the_checkpoints_but_for_norms_that_weigh_nothing(size: str) -> None:
    assert memory.KNOWN_MODELS[f"qwen3-reranker-{size}"].parameters == sum(tensors(size).values())
    assert norms(size) < 0.0002 * sum(tensors(size).values())


def test_the_count_of_the_small_model_is_the_published_one() -> None:
    published = 595_776_512
    assert memory.KNOWN_MODELS["qwen3-reranker-0.6b"].parameters + norms("0.6b") == published


KIB_A_TOKEN = [("0.6b", "float32", 224), ("0.6b", "bfloat16", 112), ("4b", "float32", 288), ("8b", "float16", 144)]


@pytest.mark.parametrize(("size", "dtype", "kib"), KIB_A_TOKEN)
def test_a_token_costs_a_key_and_a_value_in_every_layer(size: str, dtype: str, kib: int) -> None:
    needs = memory.KNOWN_MODELS[f"qwen3-reranker-{size}"].footprint
    assert needs.sequence_bytes(2 * 4096, dtype) - needs.sequence_bytes(4096, dtype) == 4096 * kib * KIB


@pytest.mark.parametrize(("size", "dtype", "kib"), KIB_A_TOKEN)
@pytest.mark.parametrize(("tokens", "blocks"), [(1, 2), (32, 2), (33, 3), (4096, 129)])
def test_a_sequence_takes_whole_blocks_and_the_one_that_stays_empty(size: str, dtype: str, kib: int, tokens: int, blocks: int) -> None:
    assert memory.KNOWN_MODELS[f"qwen3-reranker-{size}"].footprint.sequence_bytes(tokens, dtype) == blocks * 32 * kib * KIB


@pytest.mark.parametrize(("size", "dtype", "kib"), KIB_A_TOKEN)
@pytest.mark.parametrize("gib", [1, 2, 7, 9, 1024])
def test_the_longest_sequence_fits_and_one_token_more_does_not(size: str, dtype: str, kib: int, gib: int) -> None:
    needs = memory.KNOWN_MODELS[f"qwen3-reranker-{size}"].footprint
    longest = needs.longest_sequence(gib * GIB, dtype)
    assert longest == (gib * 1024**2 // (32 * kib) - 1) * 32
    assert needs.sequence_bytes(longest, dtype) <= gib * GIB < needs.sequence_bytes(longest + 1, dtype)


@pytest.mark.parametrize("block", [64, 128, 1024])
@pytest.mark.parametrize("tokens", [1, 512, 4096])
def test_a_larger_block_holds_whole_blocks_of_its_own(block: int, tokens: int) -> None:
    needs = memory.KNOWN_MODELS["qwen3-reranker-0.6b"].footprint
    assert needs.sequence_bytes(tokens, "float32", block) == (-(-tokens // block) + 1) * block * 224 * KIB
    assert needs.longest_sequence(needs.sequence_bytes(tokens, "float32", block), "float32", block) >= tokens


def test_a_cache_that_holds_no_block_holds_no_sequence() -> None:
    assert memory.KNOWN_MODELS["qwen3-reranker-0.6b"].footprint.longest_sequence(1, "float32") == 0


@pytest.mark.parametrize("size", CONFIGS)
@pytest.mark.parametrize(("dtype", "wide"), [("float32", 4), ("bfloat16", 2), ("float16", 2), ("auto", 4)])
def test_a_running_reranker_needs_weights_and_cache_and_overhead(size: str, dtype: str, wide: int) -> None:
    # A tied embedding is in memory twice: once as table, once packed for the product (docs/memory.md); only the 8B's is not tied.
    held = sum(tensors(size).values()) + (0 if size == "8b" else tensors(size)["embed_tokens"])
    needs = memory.KNOWN_MODELS[f"qwen3-reranker-{size}"].footprint
    assert needs.weight_bytes(memory.worst_dtype(dtype)) == held * wide
    assert needs.needed_bytes(memory.worst_dtype(dtype), 5 * GIB, forks=True) == held * wide + 5 * GIB + memory.ENGINE_BYTES + memory.MARGIN_BYTES
    apart = needs.needed_bytes(memory.worst_dtype(dtype), 5 * GIB, forks=False) - needs.needed_bytes(memory.worst_dtype(dtype), 5 * GIB, forks=True)
    assert apart == memory.PROCESSES_BYTES > 0


def test_exactly_the_three_published_models_are_known() -> None:
    assert sorted(memory.KNOWN_MODELS) == ["qwen3-reranker-0.6b", "qwen3-reranker-4b", "qwen3-reranker-8b"]


@pytest.mark.parametrize("size", CONFIGS)
def test_the_launcher_counts_a_model_on_the_disk_as_the_stack_counted_it_before(size: str, tmp_path: Path) -> None:
    layers, hidden, _, heads = CONFIGS[size]
    config = {
        "architectures": ["Qwen3ForCausalLM"], "dtype": "bfloat16", "num_hidden_layers": layers, "num_key_value_heads": 8, "head_dim": 128,
        "hidden_size": hidden, "num_attention_heads": heads, "max_position_embeddings": 40960, "vocab_size": 151669, "tie_word_embeddings": size != "8b",
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(2 * sum(tensors(size).values()))  # sparse
    assert read_model(tmp_path).footprint == memory.KNOWN_MODELS[f"qwen3-reranker-{size}"].footprint
