"""What the launcher is told: the dials of vLLM, and the service's."""

from dataclasses import dataclass

from serving import dials
from serving.dials import Rule, between, dial, one_of
from serving.options import Address, ServiceOptions

DECIDED = "(0: decided here)"


@dataclass(frozen=True, kw_only=True)
class LaunchDials:
    """vLLM's keys of Pulumi.yaml, in snake case; the stack's settings inherit them."""

    kv_cache_gib: int = dial("vLLM's KV cache", between(1, 1024, "GiB"))
    max_num_batched_tokens: int = dial(
        f"tokens in one forward pass {DECIDED}",
        Rule(lambda value: value == 0 or 256 <= value <= 1 << 20, "must be 0 (the launcher chooses) or from 256 to 1048576 tokens"),
    )
    max_num_seqs: int = dial(
        f"sequences in one forward pass {DECIDED}",
        Rule(lambda value: value == 0 or 1 <= value <= 4096, "must be 0 (the launcher chooses) or from 1 to 4096 sequences"),
    )
    threads: int = dial(
        f"OpenMP threads {DECIDED}", Rule(lambda value: 0 <= value <= 1024, "must be 0 (the launcher decides) or from 1 to 1024 threads")
    )
    block_size: int = dial(
        f"tokens in one block of the KV cache {DECIDED}",
        Rule(
            lambda value: value == 0 or (32 <= value <= 1024 and value % 32 == 0),
            "must be 0 (the launcher decides) or a multiple of 32 from 32 to 1024 tokens",
        ),
    )
    prefix_caching: bool = dial("template and query computed once for all documents of a call")
    preload: bool = dial("the image's own allocator and OpenMP preloaded")
    dtype: str = dial("number format", one_of("auto", "float32", "bfloat16", "float16"))
    enforce_eager: bool = dial("no compilation")


@dataclass(frozen=True, kw_only=True)
class GpuDials:
    """vLLM's keys of Pulumi.yaml for a GPU."""

    gpu_count: int = dial("GPUs, the tensor parallel size", between(1, 16, "GPUs"))
    gpu_memory_utilization_percent: int = dial("share of a GPU's memory that vLLM takes", between(10, 95, "percent"))


@dataclass(frozen=True, kw_only=True)
class LaunchOptions(LaunchDials, ServiceOptions, Address):
    """The launch command's arguments. `tokens_per_pass` is not one of them: it is decided. `extra` comes after '--' and goes to vLLM as it is."""

    device: str = dial("", one_of("cpu", "gpu"))
    # 0: no GPU. A dial of the one device is no argument of the other, whose container would be replaced with it.
    gpu_count: int = dial("GPUs, the tensor parallel size", default=0)
    gpu_memory_utilization_percent: int = dial("share of a GPU's memory that vLLM takes", default=0)
    unverified: bool = dial("the model's directory is the user's own and has no manifest", default=False)
    scratch: str = dial("directory that the score template is written under; without it the system's own for temporary files", default="")
    extra: tuple[str, ...] = dial("more arguments for vLLM's server", default=())


def written(options: LaunchOptions) -> list[str]:
    """argv of the launch command."""
    mine = dials.argv(dials.take(LaunchOptions, options, extra=()))
    return [*mine, "--", *options.extra] if options.extra else mine


def parse(argv: list[str]) -> LaunchOptions:
    """Options from the command's arguments. Exits with status 2 where they are wrong."""
    cut = argv.index("--") if "--" in argv else len(argv)
    given = dials.read(LaunchOptions, argv[:cut], prog="serving launch")
    return dials.take(LaunchOptions, given, extra=tuple(argv[cut + 1 :]))
