"""What `launch` decides, on a table of machines."""

import importlib
import inspect
from dataclasses import replace
from typing import Any

import pytest

from serving import dials
from serving.launch.decide import MIDDLEWARE, Facts, Launch, decide
from serving.launch.flags import OWN_FLAGS, Refused
from serving.launch.machine import Cpu, Machine
from serving.memory import engine_bytes
from serving.model import Model
from serving.options import ServiceOptions, hand_over, handed_over
from tests.support.options import launch_options

GIB = 1 << 30
ENTRY, NEW_ENTRY = "vllm.entrypoints.openai.api_server", "vllm.entrypoints.launchers.api_server.entry"
SMALL = Model(
    directory="/models/q",
    architecture="Qwen3ForCausalLM",
    weight_bytes=1_191_588_280,
    weight_dtype="bfloat16",
    layers=28,
    kv_heads=8,
    head_dim=128,
    max_positions=40960,
    vocabulary=151669,
    hidden=1024,
    tied=True,
)
OPTIONS = launch_options(served_model_names=("q", "/models/q"), model="/models/q")


def cores(number: int, *, threads: int = 1, nodes: int = 1) -> tuple[Cpu, ...]:
    """CPUs as Linux numbers them: first one thread of each core, node by node, then the second threads."""
    return tuple(Cpu(id=core + thread * number, core=core, node=core * nodes // number) for thread in range(threads) for core in range(number))


def machine(flags: str = "avx2", architecture: str = "x86_64", cpus: tuple[Cpu, ...] = cores(2), **changes: Any) -> Machine:
    plain = Machine(
        architecture=architecture,
        cpu_flags=frozenset(flags.split()),
        cpus=cpus,
        quota=None,
        memory=64 * GIB,
        libraries=(),
        preloaded="",
        compiler=True,
        server_module=ENTRY,
        every_address="::",
    )
    return replace(plain, **changes)


def launch(host: Machine | None = None, model: Model = SMALL, **changes: Any) -> Launch:
    return decide(Facts(machine=host or machine(), model=model), replace(OPTIONS, **changes), "/tmp/score.jinja")


def told_of(tokens: int, number_format: str) -> dict[str, str]:
    """What the environment tells the service of a pass of so many tokens in that format."""
    environment: dict[str, str] = {}
    hand_over(dials.take(ServiceOptions, OPTIONS, tokens_per_pass=tokens, number_format=number_format), environment)
    return environment


def refusal(host: Machine | None = None, model: Model = SMALL, **changes: Any) -> str:
    with pytest.raises(Refused) as caught:
        launch(host, model, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def value(of: Launch, flag: str) -> str:
    return of.argv[of.argv.index(flag) + 1]


ZEN3, ZEN4, ICE_LAKE = "avx avx2 fma", "avx avx2 avx512f avx512_bf16 avx512_vnni", "avx avx2 avx512f avx512bw avx512_vnni"
SAPPHIRE_RAPIDS = "avx2 avx512f avx512_bf16 amx_bf16 amx_tile amx_int8"


@pytest.mark.parametrize(
    ("flags", "architecture", "wanted", "got"),
    [
        (ZEN3, "x86_64", "auto", "float32"),
        (ZEN4, "x86_64", "auto", "bfloat16"),
        (ICE_LAKE, "x86_64", "auto", "float32"),
        (SAPPHIRE_RAPIDS, "x86_64", "auto", "bfloat16"),
        ("avx2 amx_bf16", "x86_64", "auto", "bfloat16"),
        ("fp asimd bf16 sve", "aarch64", "auto", "bfloat16"),
        ("fp asimd", "aarch64", "auto", "float32"),
        (ZEN4, "x86_64", "float32", "float32"),
        (ZEN4, "x86_64", "bfloat16", "bfloat16"),
        (ZEN3, "x86_64", "float32", "float32"),
    ],
)
def test_the_format_follows_what_the_cpu_computes_natively(flags: str, architecture: str, wanted: str, got: str) -> None:
    assert value(launch(machine(flags, architecture), dtype=wanted), "--dtype") == got


@pytest.mark.parametrize(("flags", "architecture"), [(ZEN3, "x86_64"), (ICE_LAKE, "x86_64"), ("fp asimd", "aarch64"), ("avx2 bf16", "x86_64")])
def test_bfloat16_on_a_cpu_without_it_is_refused_with_the_reason(flags: str, architecture: str) -> None:
    assert "a hundred times slower and the engine stalls; set dtype to auto or float32" in refusal(machine(flags, architecture), dtype="bfloat16")


def test_float16_is_refused_on_a_cpu() -> None:
    assert "float16, which is for the gpu backend" in refusal(machine(ZEN4), dtype="float16")


def test_an_x86_without_avx2_is_refused_and_told_about_virtual_machines() -> None:
    assert "set the CPU type to 'host'" in refusal(machine("sse4_2 avx"))
    launch(machine("asimd", "aarch64"))


EIGHT_SMT = cores(8, threads=2)


@pytest.mark.parametrize(
    ("cpus", "quota", "bind", "threads"),
    [
        (cores(2), None, "0,1", None),
        (cores(2), 2.0, "0,1", None),
        (cores(4), 10.0, "0,1,2,3", None),
        (EIGHT_SMT, None, "0,1,2,3,4,5,6,7", None),
        (tuple(cpu for cpu in EIGHT_SMT if cpu.id in (2, 3, 10)), None, "2,3", None),
        ((Cpu(id=0, core=0, node=0), Cpu(id=1, core=0, node=0)), None, "0", None),
        (cores(64, threads=2, nodes=2), None, ",".join(map(str, range(32))), None),
        (cores(16), 2.0, "nobind", "2"),
        (cores(16), 2.9, "nobind", "2"),
        (cores(16), 0.5, "nobind", "1"),
        (cores(64, threads=2, nodes=2), 10.0, "nobind", "10"),
        (cores(10), 0.1 * 30, "nobind", "3"),
    ],
    ids=[
        "2 cores",
        "a quota of all",
        "a quota of more",
        "8 cores of 2 threads",
        "a cpuset",
        "2 threads of one core",
        "2 sockets",
        "2 of 16",
        "2.9 of 16",
        "half of one",
        "10 of 2 sockets",
        "3 with rounding",
    ],
)
def test_every_core_the_container_has_computes_and_none_is_held_back(
    cpus: tuple[Cpu, ...], quota: float | None, bind: str, threads: str | None
) -> None:
    env = launch(machine(cpus=cpus, quota=quota)).env
    assert (env["VLLM_CPU_OMP_THREADS_BIND"], env.get("OMP_NUM_THREADS")) == (bind, threads)
    assert "VLLM_CPU_NUM_OF_RESERVED_CPU" not in env


def test_the_whole_command_on_a_two_core_laptop() -> None:
    libraries = (("tcmalloc", "/usr/lib/x/libtcmalloc_minimal.so.4"), ("iomp5", "/venv/lib/libiomp5.so"))
    got = launch(machine(ZEN4, libraries=libraries, server_module=NEW_ENTRY))
    assert got.argv == (
        "-m",
        "serving.launch.fork",
        NEW_ENTRY,
        "--model",
        "/models/q",
        "--served-model-name",
        "q",
        "/models/q",
        "--host",
        "::",
        "--port",
        "8000",
        "--runner",
        "pooling",
        "--chat-template",
        "/tmp/score.jinja",
        "--max-model-len",
        "4096",
        "--disable-uvicorn-access-log",
        "--middleware",
        "serving.launch.middleware.Middleware",
        "--enable-prefix-caching",
        "--hf-overrides",
        '{"architectures":["Qwen3ForSequenceClassification"],"classifier_from_token":["no","yes"],"is_original_qwen3_reranker":true}',
        "--enforce-eager",
        "--dtype",
        "bfloat16",
        "--block-size",
        "32",
        "--max-num-batched-tokens",
        "1024",
        "--max-num-seqs",
        "128",
        "--distributed-executor-backend",
        "uni",
    )
    assert got.env == {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "OMP_NUM_THREADS": "2",
        "KMP_AFFINITY": "granularity=fine,explicit,proclist=[0,1]",
        "KMP_BLOCKTIME": "5",
        "KMP_TPAUSE": "0",
        "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS": "1800",
        **told_of(1024, "bfloat16"),
        "LD_PRELOAD": "/usr/lib/x/libtcmalloc_minimal.so.4:/venv/lib/libiomp5.so",
    }
    assert [item.what for item in got.decisions] == [
        "prefix-caching",
        "preload",
        "processes",
        "dtype",
        "memory",
        "block-size",
        "threads",
        "max-num-batched-tokens",
        "max-num-seqs",
    ]


@pytest.mark.parametrize(
    ("cpus", "quota", "wanted", "env"),
    [
        (cores(4), None, 4, {"VLLM_CPU_OMP_THREADS_BIND": "0,1,2,3"}),
        (cores(4), None, 2, {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "2"}),
        (cores(16), 2.9, 3, {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "3"}),
    ],
)
def test_configured_threads_are_kept(cpus: tuple[Cpu, ...], quota: float | None, wanted: int, env: dict[str, str]) -> None:
    got = launch(machine(cpus=cpus, quota=quota), threads=wanted)
    assert env.items() <= got.env.items()
    (why,) = (item.why for item in got.decisions if item.what == "threads")
    assert why.startswith("as configured, ")


def test_threads_that_the_container_has_no_cores_for_are_refused_with_the_count() -> None:
    assert "threads is 3, but the container may compute on 2 cores (2 CPUs allowed, 2 cores on NUMA node 0)" in refusal(threads=3)
    assert "threads is 9, but the container may compute on 8 cores (16 CPUs allowed" in refusal(machine(cpus=EIGHT_SMT), threads=9)
    assert "may compute on 2 cores (16 CPUs allowed, 16 cores on NUMA node 0, quota 2 CPUs)" in refusal(machine(cpus=cores(16), quota=2.0), threads=3)
    assert "threads is -1" in refusal(threads=-1)
    assert "on a GPU it must be 0" in refusal(threads=2, device="gpu", gpu_count=1, gpu_memory_utilization_percent=85)


def test_a_configured_block_size_is_kept_and_one_that_a_cpu_does_not_take_is_refused() -> None:
    assert value(launch(block_size=128), "--block-size") == "128"
    assert "blockSize is 48; on a CPU it must be a multiple of 32, or 0 for 32" in refusal(block_size=48)
    assert "blockSize is -32" in refusal(block_size=-32)
    # 4,640 tokens take 145 blocks of 32 and one kept empty, of the 146 that fit; of 1,024 tokens there are 4, one of them kept empty
    launch(max_model_len=4640)
    assert "kvCacheGiB is 1, which holds 3072 tokens" in refusal(max_model_len=4640, block_size=1024)
    assert value(launch(block_size=16, device="gpu", gpu_count=1, gpu_memory_utilization_percent=85), "--block-size") == "16"


def test_prefix_caching_and_preloads_can_be_turned_off() -> None:
    libraries = (("tcmalloc", "/a/libtcmalloc_minimal.so.4"), ("iomp5", "/b/libiomp5.so"))
    got = launch(machine(libraries=libraries), prefix_caching=False, preload=False)
    assert "--no-enable-prefix-caching" in got.argv
    assert "--enable-prefix-caching" not in got.argv
    assert "LD_PRELOAD" not in got.env
    assert {"prefix-caching": "off", "preload": ""}.items() <= {item.what: item.value for item in got.decisions}.items()


def test_what_the_image_preloads_already_is_not_preloaded_twice() -> None:
    libraries = (("tcmalloc", "/a/libtcmalloc_minimal.so.4"), ("iomp5", "/b/libiomp5.so"))
    assert launch(machine(libraries=libraries, preloaded="/c/libtcmalloc.so.4")).env["LD_PRELOAD"] == "/b/libiomp5.so:/c/libtcmalloc.so.4"
    assert "LD_PRELOAD" not in launch(machine(libraries=libraries, preloaded="/c/libtcmalloc.so.4:/d/libiomp5.so")).env


@pytest.mark.parametrize(
    ("flags", "cpus", "quota", "tokens"),
    [
        (ZEN3, cores(1), None, 512),
        (ZEN3, cores(2), None, 1024),
        (ZEN4, cores(3), None, 1024),
        (ZEN3, EIGHT_SMT, None, 2048),
        (ZEN3, cores(16), 2.0, 1024),
        (ZEN4, cores(16), 0.5, 512),
        (ICE_LAKE, cores(64, threads=2, nodes=2), None, 2048),
        (SAPPHIRE_RAPIDS, cores(56, nodes=2), None, 2048),
    ],
)
def test_a_forward_pass_is_as_short_as_the_cores_allow(flags: str, cpus: tuple[Cpu, ...], quota: float | None, tokens: int) -> None:
    got = launch(machine(flags, cpus=cpus, quota=quota))
    assert value(got, "--max-num-batched-tokens") == str(tokens)
    assert "a pass cannot be interrupted" in next(item.why for item in got.decisions if item.what == "max-num-batched-tokens")


PRELOADS = (("tcmalloc", "/usr/lib/x/libtcmalloc_minimal.so.4"), ("iomp5", "/venv/lib/libiomp5.so"))


@pytest.mark.parametrize(
    ("cpus", "quota", "env"),
    [
        (cores(2), None, {"OMP_NUM_THREADS": "2", "KMP_AFFINITY": "granularity=fine,explicit,proclist=[0,1]"}),
        (EIGHT_SMT[2:6], None, {"OMP_NUM_THREADS": "4", "KMP_AFFINITY": "granularity=fine,explicit,proclist=[2,3,4,5]"}),
        (cores(16), 2.0, {"OMP_NUM_THREADS": "2"}),
    ],
)
def test_with_intels_openmp_the_engine_is_a_fork_that_computes_itself(cpus: tuple[Cpu, ...], quota: float | None, env: dict[str, str]) -> None:
    got = launch(machine(cpus=cpus, quota=quota, libraries=PRELOADS, server_module=NEW_ENTRY))
    assert got.argv[:3] == ("-m", "serving.launch.fork", NEW_ENTRY)
    assert value(got, "--distributed-executor-backend") == "uni"
    openmp = {name: text for name, text in got.env.items() if name.startswith(("OMP_", "KMP_", "VLLM_CPU_OMP"))}
    assert openmp == env | {"KMP_BLOCKTIME": "5", "KMP_TPAUSE": "0"}
    assert got.env["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"server_module": ENTRY, "libraries": PRELOADS}, "this vLLM has no vllm.entrypoints.launchers.api_server.entry"),
        ({"server_module": NEW_ENTRY, "libraries": PRELOADS[:1]}, "without Intel's OpenMP preloaded a fork could hang"),
        ({"server_module": NEW_ENTRY, "preloaded": "/x/libgomp.so.1"}, "without Intel's OpenMP preloaded a fork could hang"),
    ],
)
def test_the_engine_starts_anew_where_a_fork_is_not_known_to_work(changes: dict[str, Any], why: str) -> None:
    got = launch(machine(**changes))
    assert got.argv[:2] == ("-m", changes["server_module"])
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in got.env
    assert "--distributed-executor-backend" not in got.argv
    assert why in next(item.why for item in got.decisions if item.what == "processes")


def test_an_image_that_preloads_intels_openmp_itself_forks_also_where_the_stack_preloads_nothing() -> None:
    got = launch(machine(preloaded="/x/libtcmalloc.so.4:/x/libiomp5.so", server_module=NEW_ENTRY), preload=False)
    assert got.argv[1] == "serving.launch.fork"
    assert launch(machine(libraries=PRELOADS, server_module=NEW_ENTRY), preload=False).argv[1] == NEW_ENTRY


def test_configured_maxima_are_kept() -> None:
    got = launch(max_num_batched_tokens=512, max_num_seqs=8)
    assert (value(got, "--max-num-batched-tokens"), value(got, "--max-num-seqs")) == ("512", "8")


def test_a_compiled_engine_is_not_eager_and_needs_a_compiler() -> None:
    assert "--enforce-eager" not in launch(enforce_eager=False).argv
    assert "needs a C++ compiler and this image has none; set enforceEager to true" in refusal(machine(compiler=False), enforce_eager=False)
    launch(machine(compiler=False), enforce_eager=True)


def test_a_checkpoint_converted_before_gets_no_overrides_and_another_model_is_refused() -> None:
    assert "--hf-overrides" not in launch(model=replace(SMALL, architecture="Qwen3ForSequenceClassification")).argv
    assert "is a BertForSequenceClassification; it must be a Qwen3ForCausalLM" in refusal(
        model=replace(SMALL, architecture="BertForSequenceClassification")
    )


@pytest.mark.parametrize("forks", [False, True])
def test_memory_that_cannot_hold_the_model_is_refused_with_the_arithmetic(forks: bool) -> None:
    def host(memory: int, flags: str = ZEN3) -> Machine:
        shared: dict[str, Any] = {"libraries": PRELOADS, "server_module": NEW_ENTRY} if forks else {}
        return machine(flags, memory=memory, **shared)

    # 1.1 GiB of bfloat16 are 2.2 in float32, and 0.6 for the second embedding; what vLLM itself takes is measured
    needed, untied, half = (
        model.footprint.needed_bytes(dtype, GIB, forks=forks)
        for model, dtype in ((SMALL, "float32"), (replace(SMALL, tied=False), "float32"), (SMALL, "bfloat16"))
    )
    message = refusal(host(needed - 1))
    vllm = f"vLLM {engine_bytes(forks=forks) / GIB:.1f} = {needed / GIB:.1f} GiB"
    assert f"weights 2.8 + KV cache 1 + {vllm} in float32, limit {needed / GIB:.1f} GiB; raise memoryGiB, lower kvCacheGiB" in message
    launch(host(needed))
    assert max(untied, half) < needed
    launch(host(untied), model=replace(SMALL, tied=False))
    launch(host(half, ZEN4))


def test_a_kv_cache_that_holds_less_than_one_sequence_is_refused_with_the_number_that_does() -> None:
    message = refusal(max_model_len=8192)
    assert "kvCacheGiB is 1, which holds 4640 tokens in float32; it must hold one sequence of maxModelLen 8192: raise kvCacheGiB to 2" in message
    launch(max_model_len=8192, kv_cache_gib=2)
    launch(machine(ZEN4), max_model_len=8192)


def test_more_tokens_than_the_model_takes_are_refused() -> None:
    assert "maxModelLen is 40961, but the model /models/q takes 40960 tokens at most" in refusal(max_model_len=40961, kv_cache_gib=16)


def test_an_image_without_vllm_is_refused() -> None:
    assert "vLLM is not installed in this image" in refusal(machine(server_module=""))


def test_a_gpu_gets_its_own_dials_and_nothing_of_the_cpus() -> None:
    got = launch(machine("", memory=4 * GIB), device="gpu", gpu_count=2, gpu_memory_utilization_percent=85, kv_cache_gib=0)
    assert [
        value(got, flag) for flag in ("--dtype", "--tensor-parallel-size", "--gpu-memory-utilization", "--max-num-batched-tokens", "--max-num-seqs")
    ] == ["auto", "2", "0.85", "24576", "256"]
    assert not {name for name in got.env if "CPU" in name or "OMP" in name or name == "LD_PRELOAD"}
    assert "--block-size" not in got.argv
    assert "--enable-prefix-caching" in got.argv
    assert "--hf-overrides" in got.argv


def test_a_gpu_without_its_own_dials_is_refused_by_name() -> None:
    assert "gpuMemoryUtilizationPercent" in refusal(device="gpu", gpu_count=1)
    assert "gpuCount" in refusal(device="gpu", gpu_memory_utilization_percent=85)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"api_key_file": "/run/reranker/api_keys"},
        {"device": "gpu", "gpu_count": 1, "gpu_memory_utilization_percent": 85},
        {"max_num_batched_tokens": 700},
        {"golden_check": False, "max_body_mib": 3, "instruction": 'Find "it" \\n 北京', "served_model_names": ("a b", "c")},
    ],
)
def test_the_service_is_always_there_and_knows_its_dials_and_the_tokens_of_one_pass(changes: dict[str, Any]) -> None:
    got = launch(**changes)
    assert value(got, "--middleware") == "serving.launch.middleware.Middleware"
    told = handed_over(got.env)
    assert str(told.tokens_per_pass) == value(got, "--max-num-batched-tokens")
    assert told.number_format == value(got, "--dtype")
    assert replace(told, tokens_per_pass=0, number_format="") == dials.take(ServiceOptions, replace(OPTIONS, **changes))


def test_the_middleware_is_a_class_of_its_module() -> None:
    module, name = MIDDLEWARE.rsplit(".", 1)
    assert inspect.isclass(getattr(importlib.import_module(module), name))


def test_the_key_itself_is_in_neither_argv_nor_environment() -> None:
    got = launch(api_key_file="/run/reranker/api_keys")
    assert [item.value for item in got.decisions if item.what == "key"] == ["required"]
    assert "--api-key" not in got.argv
    assert "VLLM_API_KEY" not in got.env
    assert "key" not in [item.what for item in launch().decisions]


@pytest.mark.parametrize(
    ("argument", "named"),
    [
        ("--port", "--port"),
        ("--port=9", "--port"),
        ("--served_model_name", "--served-model-name"),
        ("--hf-overrides.architectures", "--hf-overrides"),
        ("--no-enforce-eager", "--enforce-eager"),
        ("--no-enable-prefix-caching", "--enable-prefix-caching"),
        ("--max-model", "--max-model"),
        ("-tp", "--tensor-parallel-size"),
        ("-tp2", "--tensor-parallel-size"),
        ("--api-key=secret", "--api-key"),
        ("--trust-remote-code", "--trust-remote-code"),
        ("--config", "--config"),
        ("--task", "--task"),
    ],
)
def test_an_extra_argument_that_is_the_stacks_own_is_refused_by_name(argument: str, named: str) -> None:
    message = refusal(extra=("--seed", "1", argument))
    assert f"; {named} belongs to this stack" in message
    assert "secret" not in message


def test_other_extra_arguments_go_to_vllm_as_they_are() -> None:
    extra = ("--seed", "1", "--enable-request-id-headers", "--max-logprobs=5", "--port-of-call", "-1")
    assert launch(extra=extra).argv[-len(extra) :] == extra


def test_every_flag_that_a_launch_sets_is_refused_as_an_extra_argument() -> None:
    launches = [
        launch(machine(libraries=PRELOADS, server_module=NEW_ENTRY)),
        launch(api_key_file="/k"),
        launch(enforce_eager=False),
        launch(device="gpu", gpu_count=1, gpu_memory_utilization_percent=85),
    ]
    assert {argument for one in launches for argument in one.argv if argument.startswith("--")} <= set(OWN_FLAGS)
