"""config/fits.py: every reason why a host cannot take a stack, and the hosts that can."""

from typing import Any

import pytest

from config import fits
from config.settings import Settings, SettingsError
from host import labels
from host.observe import Host
from plan import names
from tests.unit.builders import GIB, REFUSED_HERE, a_container, a_deployment, a_host, a_network, a_settings

OURS = {labels.OWNER: a_deployment().owner}
THEIRS = {labels.OWNER: "ragflow-reranker/test/ffffffff", labels.MADE: "2026-11-24 from desk:/home/kim/reranker"}
RERANKER = "ragflow-vllm-reranker"

UNFIT: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"cpus": 8}, {"cpus": 4}, "cpus: 8 is more than the 4 of this Docker host; set it to 4 or less"),
    ({"memoryGiB": 16}, {"memory": 8 * GIB - GIB // 2},
     "memoryGiB: 16 is more than the 7.5 GiB of this Docker host; lower it, or take a smaller model"),
    ({"backend": "gpu"}, {"runtimes": frozenset({"runc", "io.containerd.runc.v2"})},
     "backend: 'gpu' needs the NVIDIA runtime and this Docker host has io.containerd.runc.v2, runc; install "
     "nvidia-container-toolkit there, or set backend to cpu"),
    ({"backend": "gpu"}, {"runtimes": frozenset()},
     "backend: 'gpu' needs the NVIDIA runtime and this Docker host has none; install nvidia-container-toolkit there, or set backend to cpu"),
    ({"memoryGiB": 6}, {"architecture": "aarch64"},
     "memoryGiB: 6 cannot hold Qwen/Qwen3-Reranker-0.6B: weights 2.8 GiB in float32 (dtype auto may mean float32) + KV cache 1 GiB + "
     "vLLM itself in three processes 2.75 GiB = 6.5 GiB; raise it to 7, or take a smaller model"),
    ({}, {"containers": (a_container(RERANKER),)},
     f"containerName: a container '{RERANKER}' exists already, and this project did not make it (a compose file of an earlier guide?); remove it (docker rm -f "
     f"{RERANKER}), or choose another name"),
    ({}, {"containers": (a_container(RERANKER, labels=THEIRS, running=False),)},
     f"containerName: container '{RERANKER}' exists already, made by another deployment, ffffffff (ragflow-reranker/test, 2026-11-24 from "
     "desk:/home/kim/reranker). To have both, choose another containerName and hostPort (the network is shared): pulumi config set -s test containerName "
     f"{RERANKER}-2. To take over what is there, on purpose or after lost state: make up STACK=test TAKE_OVER=ffffffff"),
    ({}, {"networks": {"docker-ragflow": a_network("docker-ragflow", driver="macvlan")}},
     "networkName: 'docker-ragflow' exists with driver macvlan; choose another name"),
]  # fmt: skip

FIT: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"cpus": 4}, {"cpus": 4}),
    ({"memoryGiB": 8}, {"memory": 8 * GIB}),
    ({"backend": "gpu"}, {"runtimes": frozenset({"nvidia", "runc"})}),
    ({}, {"containers": (a_container(RERANKER, labels=OURS), a_container(f"{RERANKER}-2"))}),
    ({}, {"networks": {"docker-ragflow": a_network("docker-ragflow", labels=THEIRS)}}),
    ({}, {"networks": {"docker-ragflow": a_network("docker-ragflow", driver="overlay")}}),
]


def refusals_on(settings: Settings, host: Host) -> list[str]:
    return fits.refusals_on(settings, host, a_deployment(), names(settings))


@pytest.mark.parametrize(("dials", "facts", "sentence"), UNFIT)
def test_a_host_that_cannot_take_the_stack_is_refused_with_the_reason(dials: dict[str, Any], facts: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingsError) as refused:
        fits.check(a_settings(**dials), a_host(**facts), a_deployment(), names(a_settings(**dials)))
    assert str(refused.value).splitlines() == [REFUSED_HERE, f"  - {sentence}"]


@pytest.mark.parametrize(("dials", "facts"), FIT)
def test_a_host_that_can_take_the_stack_is_left_alone(dials: dict[str, Any], facts: dict[str, Any]) -> None:
    assert refusals_on(a_settings(**dials), a_host(**facts)) == []


def test_all_reasons_are_given_at_once() -> None:
    refusals = refusals_on(a_settings(backend="gpu"), a_host(cpus=1, memory=GIB, containers=(a_container(RERANKER),)))
    assert [line.split(":")[0] for line in refusals] == ["cpus", "memoryGiB", "backend", "containerName"]


@pytest.mark.parametrize("stack", ["laptop", "home-server", "mock"])
def test_the_stacks_of_this_repository_fit_the_hosts_that_they_are_written_for(stack: str) -> None:
    facts = {"laptop": (2, 8), "home-server": (10, 16), "mock": (1, 1)}[stack]
    assert refusals_on(a_settings(stack_file=stack), a_host(cpus=facts[0], memory=facts[1] * GIB)) == []
