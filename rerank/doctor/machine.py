"""What the Docker host can carry of this stack: CPU, memory against the model's arithmetic, disk, GPU, port, networks and RAGFlow. Pure: what was seen in, rows out."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]

from config import fits
from config.settings import Settings
from host import labels, ragflow
from host.facts import GIB, Facts
from host.observe import Container, Host
from host.ragflow import NotFound
from host.rows import Row
from serving.launch.decide import cpu_dtype
from serving.launch.flags import Refused
from serving.launch.machine import Cpu, Machine
from serving.memory import KNOWN_MODELS, engine_bytes

X86 = ("x86_64", "amd64")


def of_answer(answer: Mapping[str, Any]) -> tuple[Machine, int]:
    """The probe's answer as the launcher's own record, and the free disk in bytes."""
    names = {item.name for item in dataclasses.fields(Machine)}
    held = {name: value for name, value in answer.items() if name in names}
    held["cpu_flags"] = frozenset(answer["cpu_flags"])
    held["cpus"] = tuple(Cpu(**one) for one in answer["cpus"])
    held["libraries"] = tuple((str(name), str(path)) for name, path in answer["libraries"])
    return Machine(**held), int(answer["free"])


def split(refusal: str) -> tuple[str, str, str]:
    """(name, text, remedy) of a refusal in the house's form: 'key: what is wrong; what to do'."""
    name, _, rest = refusal.partition(": ")
    text, _, remedy = rest.partition("; ")
    return name, text, remedy


def ours(s: Settings, host: Host | None, stack: str) -> Container | None:
    """The stack's container, where the host has one of that name that a stack of this name made ('': any). Whether of this checkout, its state alone would tell."""
    found = host.container(s.container_name) if host else None
    owner = found.labels.get(labels.OWNER, "").split("/") if found else []
    return found if len(owner) > 1 and stack in ("", owner[1]) else None


def name_row(s: Settings, host: Host, stack: str) -> Row:
    """containerName: free, the stack's, or somebody else's."""
    held = host.container(s.container_name)
    if held is None:
        return Row("container", "ok", f"{s.container_name}: none yet")
    if ours(s, host, stack):
        return Row("container", "ok", f"{s.container_name} is deployed, and {'runs' if held.running else 'does not run'}")
    owner = held.labels.get(labels.OWNER)
    maker = f"the stack {owner} made it" if owner else "this project did not make it"
    remove = "set another containerName and hostPort" if owner else f"remove it (docker rm -f {s.container_name}), or set another containerName"
    return Row("container", "fail", f"a container {s.container_name!r} exists already, and {maker}", remove)


def cpu_rows(s: Settings, machine: Machine | None, *, where: str, why: str) -> list[Row]:
    """The instructions as a container sees them, the number format that they mean, and the cores of its cgroup. `why`: what kept them from being seen."""
    if s.backend != "cpu":
        return []
    if machine is None:
        return [Row("cpu", "not seen", why, "")]
    flags = sorted(machine.cpu_flags & {"avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16"})
    seen = f"{machine.architecture} with {', '.join(flags) or 'neither AVX2 nor anything like it'} (seen in {where})"
    if machine.architecture in X86 and "avx2" not in machine.cpu_flags:
        return [
            Row(
                "cpu",
                "fail",
                f"{seen}: without AVX2 vLLM dies of an illegal instruction",
                "in a virtual machine set the CPU type to 'host'; else use another machine, or backend external",
            )
        ]
    try:
        dtype, reason = cpu_dtype(machine, s.dtype)
    except Refused as refused:
        return [Row("cpu", "fail", f"{seen}: {refused}", "set dtype to auto")]
    slow = s.dtype == "auto" and dtype == "float32"
    rows = [Row("cpu", "ok", f"{seen}: the model runs in {dtype}, since {reason}" + (", about half as fast as bfloat16" if slow else ""))]
    cores = len({cpu.core for cpu in machine.cpus})
    if cores < s.cpus <= len(machine.cpus):
        rows.append(
            Row(
                "cores",
                "warn",
                f"cpus {s.cpus}, but the {len(machine.cpus)} CPUs of this host are threads of {cores} cores, and only those compute",
                f"set cpus to {cores}: the others are then left to the rest of the host",
            )
        )
    else:
        rows.append(
            Row(
                "cores",
                "ok",
                f"{cores} cores, {len(machine.cpus)} CPUs{'' if machine.quota is None else f', a quota of {machine.quota:g}'} for cpus {s.cpus}",
            )
        )
    return rows


def capacity_rows(s: Settings, said: Facts, machine: Machine | None) -> list[Row]:
    """cpus and memoryGiB against the host, and against what the model takes by serving/memory.py."""
    rows = []
    if s.cpus > said.cpus:
        rows.append(Row("cpus", "fail", f"{s.cpus} is more than the {said.cpus} of this Docker host", f"set it to {said.cpus} or less"))
    name, cure = "model memory", "lower memoryGiB, or take a smaller model"
    if s.memory_gib * GIB > said.memory:
        return [*rows, Row(name, "fail", f"memoryGiB {s.memory_gib} is more than the {said.memory / GIB:.1f} GiB of this Docker host", cure)]
    shape = KNOWN_MODELS.get(s.model_slug)
    if s.backend != "cpu" or shape is None:
        return [
            *rows,
            Row(
                name, "ok", f"{s.memory_gib} of {said.memory / GIB:.1f} GiB" + ("" if s.backend != "cpu" else f"; what {s.model} takes is not known")
            ),
        ]
    dtype = "float32" if s.dtype == "auto" else s.dtype
    if machine is not None:
        try:
            dtype, _ = cpu_dtype(machine, s.dtype)
        except Refused:
            pass
    forks = said.architecture in X86
    needed = shape.footprint.needed_bytes(dtype, s.kv_cache_gib * GIB, forks=forks)
    limit = min(s.memory_gib * GIB, machine.memory if machine else said.memory)
    sum_of = (
        f"{s.model} in {dtype}: weights {shape.footprint.weight_bytes(dtype) / GIB:.1f} + KV cache {s.kv_cache_gib} + vLLM {engine_bytes(forks=forks) / GIB:.1f} "
        f"= {needed / GIB:.1f} GiB of {limit / GIB:.1f}"
    )
    if needed > limit:
        return [*rows, Row(name, "fail", sum_of, f"raise memoryGiB to {math.ceil(needed / GIB)}, or take a smaller model")]
    return [*rows, Row(name, "ok", sum_of)]


def gpu_row(s: Settings, said: Facts, seen: str | None) -> Row:
    """The NVIDIA runtime. `seen`: the GPUs by nvidia-smi, a line each; None: not asked from here."""
    refusal = next(iter(fits.gpu_refusals(s, said)), "")
    if refusal:
        _, text, remedy = split(refusal)
        return Row("gpu", "fail", f"{text}: without it vLLM sees no GPU and ends with 'Failed to infer device type'", remedy)
    if seen is None:
        return Row("gpu", "ok", "the daemon has the NVIDIA runtime; the GPUs themselves were not seen from here")
    gpus = [line for line in seen.splitlines() if line.startswith("GPU ")]
    if len(gpus) < s.gpu_count:
        return Row(
            "gpu",
            "fail",
            f"gpuCount is {s.gpu_count}, and the driver shows {len(gpus)}: vLLM would end with 'Failed to infer device type', or wait for the others",
            "set gpuCount to what there is; where there are more, 'nvidia-smi' on the host says what is wrong with the driver",
        )
    return Row("gpu", "ok", f"the NVIDIA runtime, and {'; '.join(line.split(' (UUID')[0] for line in gpus)}")


def port_row(s: Settings, host: Host, port: str, stack: str) -> Row:
    """hostPort. `port`: what host/ports.py saw besides containers."""
    if not s.host_port:
        return Row("hostPort", "ok", "0: none is published, and RAGFlow needs none")
    mine = ours(s, host, stack)
    if mine and any(number == s.host_port for _, number in mine.ports):
        return Row("hostPort", "ok", f"{s.host_port} on {s.bind_address} is the reranker's already")
    for refusal in fits.port_refusals(s, host, port):
        name, text, remedy = split(refusal)
        return Row(name, "fail", text, remedy)
    return Row("hostPort", "ok", f"{s.host_port} on {s.bind_address} is free")


def network_rows(s: Settings, host: Host) -> list[Row]:
    """The shared network, and RAGFlow's containers on this host."""
    name = s.ragflow_network if s.ragflow_mode == "join" else s.network_name
    rows = []
    for refusal in fits.network_refusals(s, host):
        key, text, remedy = split(refusal)
        rows.append(Row(key, "fail", text, remedy))
    if not rows and s.ragflow_mode != "join":
        rows.append(Row("network", "ok", f"{name} {'is there, and is used' if name in host.networks else 'is made'}"))
    if s.ragflow_mode == "none":
        return [*rows, Row("RAGFlow", "ok", "ragflowMode none leaves it alone")]
    try:
        found = ragflow.find(host.containers, named=s.ragflow_containers, own=s.container_name)
        ragflow.require_networks(found, host.containers, host_url=f"http://{s.bind_address}:{s.host_port}" if s.host_port else "")
        joined = ragflow.own_network(found, shared=s.network_name) if s.ragflow_mode == "join" and not s.ragflow_network else ""
    except NotFound as reason:
        key, text, remedy = split(str(reason))
        return [*rows, Row(key, "fail", text, remedy)]
    if not found:
        return [
            *rows,
            Row(
                "RAGFlow",
                "warn",
                "no container of it is on this host",
                "start RAGFlow, then make up (a later one is attached by the next up); ragflowContainers names others",
            ),
        ]
    running = [f"{one.name}{'' if one.running else ' (does not run)'}" for one in found]
    return [*rows, Row("RAGFlow", "ok", ", ".join(running) + (f", whose network {joined} the reranker joins" if joined else ""))]


def ragflows(s: Settings, host: Host) -> list[str]:
    """RAGFlow's containers by name; none where they are left alone, or not as they are named."""
    try:
        return (
            [one.name for one in ragflow.find(host.containers, named=s.ragflow_containers, own=s.container_name)] if s.ragflow_mode != "none" else []
        )
    except NotFound:
        return []


def environments(text: str) -> dict[str, dict[str, str]]:
    """The environment of each container that `docker container inspect` described, by name."""
    return {
        str(item["Name"]).lstrip("/"): dict(entry.partition("=")[::2] for entry in item["Config"].get("Env") or ())
        for item in json.loads(text or "[]")
    }


def proxy_rows(s: Settings, held: Mapping[str, Mapping[str, str]]) -> list[Row]:
    """Whether a proxy of RAGFlow's container would swallow its calls to the reranker, which no proxy knows by name."""
    rows = []
    for name, environment in sorted(held.items()):
        proxy = next((variable for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY") if environment.get(variable)), "")
        spared = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
        if not proxy or proxy_bypass_environment(s.container_name, {"no": spared}):
            rows.append(Row("its proxy", "ok", f"{name} has {'one that spares ' + s.container_name if proxy else 'none'}"))
            continue
        rows.append(
            Row(
                "its proxy",
                "fail",
                f"{name} has {proxy}, and its no_proxy does not name {s.container_name}: the proxy would answer in the reranker's place",
                f"set NO_PROXY and no_proxy to {','.join(filter(None, [spared, s.container_name]))} where RAGFlow is started (docker/.env), and start it again",
            )
        )
    return rows


def images(listed: str, s: Settings) -> Sequence[tuple[str, str]]:
    """(id, name) of the images at hand that may have Python, those with vLLM first: of `docker image ls --format '{{.ID}} {{.Repository}}:{{.Tag}}'`."""
    pairs = [tuple(line.split(" ", 1)) for line in listed.splitlines() if " " in line]

    def rank(name: str) -> int:
        path, _, tag = name.rpartition(":")
        if name == f"{s.container_name.lower()}:{s.backend}" and s.backend != "mock":
            return 0
        if path.rsplit("/", 1)[-1] in ("vllm-cpu", "vllm-openai", "vllm"):
            return 1 if tag == s.vllm_version else 2
        if name == f"{s.container_name.lower()}:{s.backend}":
            return 3
        return 4 if path.rsplit("/", 1)[-1] == "python" or "reranker" in path else 5

    ranked = sorted(((rank(name), number, name) for number, name in pairs if not name.startswith("<none>")), key=lambda item: item[0])
    return [(number, name) for order, number, name in ranked if order < 5]
