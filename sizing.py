"""What a Qwen3-Reranker needs in memory: arithmetic alone, from the shapes in the models' own config.json."""

from dataclasses import dataclass

GIB = 1 << 30

# vLLM itself, its activations and its processes, beside weights and KV cache: docs/memory.md has the measurements.
OVERHEAD_GIB = 2.5

# Tokens in one block of vLLM's KV cache, as the launcher sets it on a CPU.
BLOCK_TOKENS = 32

BYTES_PER_VALUE = {"float32": 4, "bfloat16": 2, "float16": 2}


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

    def weights_gib(self, dtype: str) -> float:
        """Weights in GiB. vLLM packs a second copy of an embedding that is tied to the output (0.6B and 4B)."""
        packed = self.vocabulary * self.hidden if self.tied else 0
        return (self.parameters + packed) * BYTES_PER_VALUE[dtype] / GIB

    def kv_gib(self, tokens: int, dtype: str) -> float:
        """KV cache for one sequence of `tokens` tokens, in GiB: whole blocks, and the one that vLLM keeps empty."""
        return (-(-tokens // BLOCK_TOKENS) + 1) * self._block_gib(dtype)

    def kv_tokens(self, gib: float, dtype: str) -> int:
        """Tokens of the longest sequence that a KV cache of `gib` GiB holds."""
        return (int(gib / self._block_gib(dtype)) - 1) * BLOCK_TOKENS

    def _block_gib(self, dtype: str) -> float:
        # A key and a value for each layer and KV head.
        return BLOCK_TOKENS * 2 * self.layers * self.kv_heads * self.head_dim * BYTES_PER_VALUE[dtype] / GIB


KNOWN_MODELS = {
    "qwen3-reranker-0.6b": ModelShape(layers=28, hidden=1024, intermediate=3072, heads=16),
    "qwen3-reranker-4b": ModelShape(layers=36, hidden=2560, intermediate=9728, heads=32),
    "qwen3-reranker-8b": ModelShape(layers=36, hidden=4096, intermediate=12288, heads=32, tied=False),
}


def worst_dtype(dtype: str) -> str:
    """The widest format that `dtype` may turn into: 'auto' is float32 on a CPU without bfloat16."""
    return "float32" if dtype == "auto" else dtype


def needed_gib(shape: ModelShape, *, dtype: str, kv_cache_gib: float) -> float:
    """Memory of a running reranker in GiB: weights + KV cache + overhead."""
    return shape.weights_gib(worst_dtype(dtype)) + kv_cache_gib + OVERHEAD_GIB
