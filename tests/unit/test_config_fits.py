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
    ({}, {"networks": {"docker-ragflow": a_network("docker-ragflow", driver="macvlan", unfit="exists with driver macvlan, and only bridge and overlay networks let "
         "containers call each other by name on every host")}},
     "networkName: 'docker-ragflow' exists with driver macvlan, and only bridge and overlay networks let containers call each other by name on every host; choose "
     "another name, and the network is made"),
    ({}, {"lacking": frozenset({"swap"})},
     "memoryGiB: this Docker host cannot keep a container out of swap (the kernel's swap accounting is off); add 'swapaccount=1' to the kernel's command line "
     "(GRUB_CMDLINE_LINUX; cmdline.txt on a Raspberry Pi) and restart the host; or set missingLimits to omit: then memoryGiB holds, but the reranker may be swapped "
     "out, and is slow then"),
    ({"backend": "mock"}, {"architecture": "armv7l"},
     "architecture: this Docker host is armv7l, a 32-bit system, and vLLM and PyTorch have no build for one; install a 64-bit system there (a Raspberry Pi 3 or newer "
     "can: Raspberry Pi OS, 64-bit), or set dockerHost to another machine"),
    ({}, {"networks": {"docker-ragflow": a_network("docker-ragflow", id="a" * 64, twins=("b" * 64,))}},
     "networkName: 2 networks of this Docker host are called 'docker-ragflow' (aaaaaaaaaaaa, bbbbbbbbbbbb), and the name alone tells Docker neither; 'docker network "
     "inspect <id>' shows which containers are on which: remove the one that is not used (docker network rm <id>)"),
    ({"ragflowMode": "join", "ragflowNetwork": "theirs"}, {"networks": {"theirs": a_network("theirs", unfit="takes no containers")}},
     "ragflowNetwork: 'theirs' takes no containers"),
    ({}, {"networks": {"docker-ragflow": a_network("docker-ragflow", internal=True)}},
     "hostPort: 8123 cannot be published from 'docker-ragflow', an internal network (made with --internal); set hostPort to 0 (RAGFlow does not need it), or choose "
     "another networkName"),
    ({}, {"containers": (a_container("web", ports=(("0.0.0.0", 80), ("", 8123))),)},
     "hostPort: 8123 on 127.0.0.1 is published by the container 'web'; stop that, or set hostPort to another, or to 0 for none (RAGFlow does not need it)"),
]  # fmt: skip

FIT: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"cpus": 4}, {"cpus": 4}),
    ({"memoryGiB": 8}, {"memory": 8 * GIB}),
    ({"backend": "gpu"}, {"runtimes": frozenset({"nvidia", "runc"})}),
    ({}, {"containers": (a_container(RERANKER, labels=OURS), a_container(f"{RERANKER}-2"))}),
    ({}, {"networks": {"docker-ragflow": a_network("docker-ragflow", labels=THEIRS)}}),
    ({}, {"networks": {"docker-ragflow": a_network("docker-ragflow", driver="overlay")}}),
    ({"missingLimits": "omit"}, {"lacking": frozenset({"cpu", "memory", "swap"})}),
    ({"backend": "gpu"}, {"architecture": "ppc64le", "runtimes": frozenset({"nvidia"})}),
    ({"hostPort": 0}, {"networks": {"docker-ragflow": a_network("docker-ragflow", internal=True)}}),
    (
        {"ragflowMode": "join", "ragflowNetwork": "theirs"},
        {"networks": {"docker-ragflow": a_network("docker-ragflow", twins=("b",), unfit="is not used")}},
    ),
    ({}, {"containers": (a_container(RERANKER, labels=OURS, ports=(("127.0.0.1", 8123),)),)}),
    (
        {},
        {
            "containers": (
                a_container("web", ports=(("192.168.1.9", 8123), ("127.0.0.1", 8124))),
                a_container("off", running=False, ports=(("", 8123),)),
            )
        },
    ),
    ({"hostPort": 0}, {"containers": (a_container("web", ports=(("", 8123),)),)}),
]


def refusals_on(settings: Settings, host: Host, *, port: str = "") -> list[str]:
    return fits.refusals_on(settings, host, a_deployment(), names(settings), port=port)


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


TAKEN = [
    ("taken", "hostPort: 8123 on 127.0.0.1 is taken on the Docker host by another program; stop that, or set hostPort to another, or to 0 for none (RAGFlow does "
     "not need it)"),
    ("taken by nginx (process 812)", "hostPort: 8123 on 127.0.0.1 is taken by nginx (process 812); stop that, or set hostPort to another, or to 0 for none (RAGFlow "
     "does not need it)"),
    ("absent", "bindAddress: 127.0.0.1 is no address of the Docker host; 'ip -brief address' there shows which are, 127.0.0.1 keeps the port to that host"),
]  # fmt: skip


@pytest.mark.parametrize(("port", "sentence"), TAKEN)
def test_a_port_that_is_not_to_be_had_is_refused_by_its_key_with_who_has_it(port: str, sentence: str) -> None:
    assert refusals_on(a_settings(), a_host(), port=port) == [sentence]


@pytest.mark.parametrize(
    ("dials", "containers", "wanted"),
    [
        ({}, (), True),
        ({"hostPort": 0}, (), False),
        ({}, (a_container(RERANKER, labels=OURS, ports=(("127.0.0.1", 8123),)),), False),
        ({"hostPort": 8200}, (a_container(RERANKER, labels=OURS, ports=(("127.0.0.1", 8123),)),), True),
        ({}, (a_container(RERANKER, labels=OURS, running=False),), True),
    ],
)
def test_a_port_that_our_own_container_has_is_not_asked_for_again(dials: dict[str, Any], containers: Any, wanted: bool) -> None:
    assert fits.wants_port(a_settings(**dials), a_host(containers=containers), a_deployment()) is wanted


def test_a_host_that_works_otherwise_than_one_may_think_is_warned_of() -> None:
    host = a_host(lacking=frozenset({"cpu"}), driver="vfs", networks={"docker-ragflow": a_network("docker-ragflow", ipv4=False)})
    settings = a_settings(missingLimits="omit")
    said = fits.check(settings, host, a_deployment(), names(settings))
    assert [sentence.split(":")[0] for sentence in said] == ["cpus", "docker", "networkName"]
    assert "has IPv6 alone" in said[2]
    assert fits.check(a_settings(), a_host(), a_deployment(), names(a_settings())) == []


def test_a_host_that_has_the_stack_already_is_not_asked_for_the_room_of_a_first_one() -> None:
    full = {"root": "/var/lib/docker", "free": GIB // 2}
    assert [line.split(":")[0] for line in refusals_on(a_settings(), a_host(**full))] == ["disk"]
    assert refusals_on(a_settings(), a_host(**full, containers=(a_container(RERANKER, labels=OURS),))) == []
