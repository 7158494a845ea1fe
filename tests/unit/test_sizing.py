"""sizing.py against the models' config.json, summed here tensor by tensor."""

import pytest

import sizing
from serving import launcher

GIB = 1024**3
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
    assert sizing.KNOWN_MODELS[f"qwen3-reranker-{size}"].parameters == sum(tensors(size).values())
    assert norms(size) < 0.0002 * sum(tensors(size).values())


def test_the_count_of_the_small_model_is_the_published_one() -> None:
    published = 595_776_512
    assert sizing.KNOWN_MODELS["qwen3-reranker-0.6b"].parameters + norms("0.6b") == published


KIB_A_TOKEN = [("0.6b", "float32", 224), ("0.6b", "bfloat16", 112), ("4b", "float32", 288), ("8b", "float16", 144)]


@pytest.mark.parametrize(("size", "dtype", "kib"), KIB_A_TOKEN)
def test_a_token_costs_a_key_and_a_value_in_every_layer(size: str, dtype: str, kib: int) -> None:
    shape = sizing.KNOWN_MODELS[f"qwen3-reranker-{size}"]
    assert shape.kv_gib(2 * 4096, dtype) - shape.kv_gib(4096, dtype) == 4096 * kib / 1024**2


@pytest.mark.parametrize(("size", "dtype", "kib"), KIB_A_TOKEN)
@pytest.mark.parametrize(("tokens", "blocks"), [(1, 2), (32, 2), (33, 3), (4096, 129)])
def test_a_sequence_takes_whole_blocks_and_the_one_that_stays_empty(size: str, dtype: str, kib: int, tokens: int, blocks: int) -> None:
    assert sizing.KNOWN_MODELS[f"qwen3-reranker-{size}"].kv_gib(tokens, dtype) == blocks * 32 * kib / 1024**2


@pytest.mark.parametrize(("size", "dtype", "kib"), KIB_A_TOKEN)
@pytest.mark.parametrize("gib", [1, 2, 7, 9, 1024])
def test_the_longest_sequence_fits_and_one_token_more_does_not(size: str, dtype: str, kib: int, gib: int) -> None:
    shape = sizing.KNOWN_MODELS[f"qwen3-reranker-{size}"]
    assert shape.kv_tokens(gib, dtype) == (gib * 1024**2 // (32 * kib) - 1) * 32
    assert shape.kv_gib(shape.kv_tokens(gib, dtype), dtype) <= gib < shape.kv_gib(shape.kv_tokens(gib, dtype) + 1, dtype)


def test_the_block_is_the_one_that_the_launcher_sets() -> None:
    assert sizing.BLOCK_TOKENS == launcher.BLOCK_TOKENS


@pytest.mark.parametrize("size", CONFIGS)
@pytest.mark.parametrize(("dtype", "wide"), [("float32", 4), ("bfloat16", 2), ("float16", 2), ("auto", 4)])
def test_a_running_reranker_needs_weights_and_cache_and_overhead(size: str, dtype: str, wide: int) -> None:
    # A tied embedding is in memory twice: once as table, once packed for the product (docs/memory.md); only the 8B's is not tied.
    held = sum(tensors(size).values()) + (0 if size == "8b" else tensors(size)["embed_tokens"])
    expected = held * wide / GIB + 5 + sizing.OVERHEAD_GIB
    assert sizing.needed_gib(sizing.KNOWN_MODELS[f"qwen3-reranker-{size}"], dtype=dtype, kv_cache_gib=5) == pytest.approx(expected, rel=1e-12)


def test_exactly_the_three_published_models_are_known() -> None:
    assert sorted(sizing.KNOWN_MODELS) == ["qwen3-reranker-0.6b", "qwen3-reranker-4b", "qwen3-reranker-8b"]
