"""What the launcher reads of machine and model, from small trees of files."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from serving.facts import MANIFEST, BadModel, Cpu, check_directory, read_machine, read_model

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


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in {"proc/meminfo": "MemTotal:       33554432 kB\nMemFree: 1 kB\n"}.items() | files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "quota", "memory"),
    [
        ({}, None, 32 << 30),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "200000 100000\n", "sys/fs/cgroup/memory.max": "8589934592\n"}, 2.0, 8 << 30),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n", "sys/fs/cgroup/memory.max": "max\n"}, None, 32 << 30),
        (
            {
                "proc/self/cgroup": "0::/user/app\n",
                "sys/fs/cgroup/user/cpu.max": "150000 100000\n",
                "sys/fs/cgroup/user/app/cpu.max": "max 100000\n",
                "sys/fs/cgroup/user/app/memory.max": "2147483648\n",
                "sys/fs/cgroup/user/memory.max": "4294967296\n",
            },
            1.5,
            2 << 30,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/docker/ab\n1:cpu,cpuacct:/docker/ab\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "1000000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "17179869184\n",
            },
            10.0,
            16 << 30,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/\n1:cpu:/\n0::/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            None,
            32 << 30,
        ),
    ],
    ids=["no cgroup", "v2 in a container", "v2 without limits", "v2 limits of the cgroups above", "v1 with the host's path", "v1 without limits"],
)
def test_limits_are_read_from_cgroups_of_both_versions(tmp_path: Path, files: dict[str, str], quota: float | None, memory: int) -> None:
    machine = read_machine(tree(tmp_path, files), frozenset({0}))
    assert (machine.quota, machine.memory) == (quota, memory)


@pytest.mark.parametrize(("line", "flag"), [("flags\t\t: fpu avx2 avx512_bf16", "avx512_bf16"), ("Features\t: fp asimd bf16", "bf16")])
def test_cpu_flags_are_read_on_x86_and_on_arm(tmp_path: Path, line: str, flag: str) -> None:
    machine = read_machine(tree(tmp_path, {"proc/cpuinfo": f"processor\t: 0\n{line}\n\nprocessor\t: 1\n{line}\n"}), frozenset({0}))
    assert flag in machine.cpu_flags
    assert len(machine.cpu_flags) == len(line.split(":")[1].split())


def test_only_allowed_cpus_count_with_their_core_and_node(tmp_path: Path) -> None:
    files = {f"sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list": text for n, text in {1: "1,5", 5: "1,5", 6: "6-7"}.items()}
    files |= {f"sys/devices/system/cpu/cpu{n}/node{node}/x": "" for n, node in {1: 0, 5: 0, 6: 1}.items()}
    assert read_machine(tree(tmp_path, files), frozenset({6, 1, 5})).cpus == (
        Cpu(id=1, core=1, node=0),
        Cpu(id=5, core=1, node=0),
        Cpu(id=6, core=6, node=1),
    )


def test_a_machine_that_hides_its_topology_has_one_core_for_each_cpu(tmp_path: Path) -> None:
    assert read_machine(tree(tmp_path, {}), frozenset({0, 1})).cpus == (Cpu(id=0, core=0, node=0), Cpu(id=1, core=1, node=0))


def test_the_allocator_is_found_where_debian_puts_it(tmp_path: Path) -> None:
    library = "usr/lib/aarch64-linux-gnu/libtcmalloc_minimal.so.4"
    assert ("tcmalloc", str(tmp_path / library)) in read_machine(tree(tmp_path, {library: ""}), frozenset({0})).libraries


def test_this_very_machine_can_be_read() -> None:
    machine = read_machine()
    assert {cpu.id for cpu in machine.cpus} == os.sched_getaffinity(0)
    assert machine.memory > 1 << 30
    assert machine.cpu_flags


def model(directory: Path, *, manifest: bool = True, **changes: object) -> Path:
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
    assert (found.weight_memory("bfloat16"), found.weight_memory("float32")) == (100, 200)
    assert found.packed_embedding("bfloat16") == 151669 * 1024 * 2
    assert replace(found, tied=False).packed_embedding("bfloat16") == 0
    # 112 KiB a token in bfloat16, 224 KiB in float32
    assert (found.kv_bytes_per_token("bfloat16"), found.kv_bytes_per_token("float32")) == (112 * 1024, 224 * 1024)


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
def test_a_config_that_is_no_qwen3_rerankers_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    directory = model(tmp_path / "m", **changes)
    with pytest.raises(BadModel, match=message):
        read_model(directory)


def test_a_complete_model_passes_with_and_without_a_manifest(tmp_path: Path) -> None:
    check_directory(model(tmp_path / "verified"), verified=True)
    check_directory(model(tmp_path / "own", manifest=False), verified=False)


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
def test_an_incomplete_model_is_refused_in_one_sentence(tmp_path: Path, damage, verified: bool, message: str) -> None:
    directory = model(tmp_path / "m")
    damage(directory)
    with pytest.raises(BadModel, match=message) as refusal:
        check_directory(directory, verified=verified)
    assert "\n" not in str(refusal.value)


def test_a_weight_file_that_the_containers_user_cannot_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = model(tmp_path / "m")
    (directory / "model.safetensors").chmod(0o600)
    # Tests run as root, who may read everything: ask as the others would.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).is_dir() or bool(Path(path).stat().st_mode & 0o004))
    with pytest.raises(BadModel, match=r"model.safetensors cannot be read by user \d+; it must be readable by all: chmod a\+r it"):
        check_directory(directory, verified=True)
