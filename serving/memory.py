"""The one model of memory: what weights, KV cache and vLLM itself take. The stack counts with it before anything is deployed, the launcher on the machine."""

from dataclasses import dataclass

GIB = 1 << 30
BYTES_PER_VALUE = {"float32": 4, "bfloat16": 2, "float16": 2}
# Tokens in one block of vLLM's KV cache on a CPU: the smallest that it takes shares most of template and query between the documents of a call.
BLOCK_TOKENS = 32
# vLLM itself, its activations and its processes, beside weights and KV cache (docs/memory.md has the measurements): with the engine forked off the server,
# which shares what both imported, it ran with 1.2 GiB and not with 0.7; where each of its three processes starts anew, with 2.2 and not with 1.8.
ENGINE_BYTES = 5 * GIB // 4
PROCESSES_BYTES = GIB
# For what comes and goes: bodies of requests and their tokens, and the file of the weights, which the kernel reads ahead.
MARGIN_BYTES = GIB // 2


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What of a model takes memory, counted in values of its number format: `packed` is a second embedding that vLLM keeps, `kv_a_token` a token's keys and values."""

    weights: int
    packed: int
    kv_a_token: int

    def weight_bytes(self, dtype: str) -> int:
        return (self.weights + self.packed) * BYTES_PER_VALUE[dtype]

    def block_bytes(self, dtype: str, block: int = BLOCK_TOKENS) -> int:
        return block * self.kv_a_token * BYTES_PER_VALUE[dtype]

    def sequence_bytes(self, tokens: int, dtype: str, block: int = BLOCK_TOKENS) -> int:
        """KV cache that holds one sequence of `tokens` tokens: whole blocks, and the one that vLLM keeps empty."""
        return (-(-tokens // block) + 1) * self.block_bytes(dtype, block)

    def longest_sequence(self, cache: int, dtype: str, block: int = BLOCK_TOKENS) -> int:
        """Tokens of the longest sequence that a KV cache of `cache` bytes holds."""
        return max(0, cache // self.block_bytes(dtype, block) - 1) * block

    def needed_bytes(self, dtype: str, cache: int, *, forks: bool) -> int:
        """Memory of a running reranker: weights + KV cache + vLLM itself."""
        return self.weight_bytes(dtype) + cache + engine_bytes(forks=forks)


def engine_bytes(*, forks: bool) -> int:
    """vLLM itself, with the margin. `forks`: the engine is a fork of the server (launch/decide.py says when)."""
    return ENGINE_BYTES + MARGIN_BYTES + (0 if forks else PROCESSES_BYTES)


def tied_copy(vocabulary: int, hidden: int, tied: bool) -> int:
    """Values of the second embedding that vLLM packs for a CPU where embedding and output are one matrix (0.6B, 4B); else the head that goes makes room."""
    return vocabulary * hidden if tied else 0


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """Numbers of one Qwen3 model's config.json."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int = 8
    head_dim: int = 128
    vocabulary: int = 151_669
    tied: bool = True

    @property
    def parameters(self) -> int:
        """Weights that vLLM holds: embedding, attention and feed-forward matrices (norms and the score head are noise)."""
        attention = 2 * self.hidden * self.heads * self.head_dim + 2 * self.hidden * self.kv_heads * self.head_dim
        feed_forward = 3 * self.hidden * self.intermediate
        return self.vocabulary * self.hidden + self.layers * (attention + feed_forward)

    @property
    def footprint(self) -> Footprint:
        return Footprint(
            weights=self.parameters,
            packed=tied_copy(self.vocabulary, self.hidden, self.tied),
            kv_a_token=2 * self.layers * self.kv_heads * self.head_dim,
        )


KNOWN_MODELS = {
    "qwen3-reranker-0.6b": ModelShape(layers=28, hidden=1024, intermediate=3072, heads=16),
    "qwen3-reranker-4b": ModelShape(layers=36, hidden=2560, intermediate=9728, heads=32),
    "qwen3-reranker-8b": ModelShape(layers=36, hidden=4096, intermediate=12288, heads=32, tied=False),
}


def worst_dtype(dtype: str) -> str:
    """The widest format that `dtype` may turn into: 'auto' is float32 on a CPU without bfloat16."""
    return "float32" if dtype == "auto" else dtype
