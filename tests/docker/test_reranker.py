"""The reranker's container, as the kernel, the daemon and a caller see it."""

import json
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support import ragflow

GIB = 1 << 30
DOCUMENTS = ["Bananas are yellow", "The Eiffel tower is in Paris", "Paris is the capital of France"]


def shell(container: str, command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["docker", "exec", container, "/bin/sh", "-c", command], capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def inspected(deployed: Any) -> dict[str, Any]:
    return dict(deployed.place.client.api.inspect_container(deployed.place.container))


def test_up_ends_when_the_reranker_is_healthy(inspected: dict[str, Any]) -> None:
    assert inspected["State"]["Health"]["Status"] == "healthy"


def test_a_second_up_changes_nothing(deployed: Any, inspected: dict[str, Any]) -> None:
    assert deployed.place.up().news == {}
    assert deployed.place.client.api.inspect_container(deployed.place.container)["Id"] == inspected["Id"]


@pytest.mark.parametrize("process", ["1", "self"])
def test_the_kernel_sees_neither_root_nor_capabilities_nor_a_way_to_get_them(deployed: Any, process: str) -> None:
    lines = shell(deployed.place.container, f"cat /proc/{process}/status").stdout.splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert (status["Uid"], status["Gid"]) == ("2000\t2000\t2000\t2000", "2000\t2000\t2000\t2000")
    assert {status[name] for name in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"].strip() == "1"


@pytest.mark.parametrize("directory", ["/", "/opt/reranker", "/opt/reranker/serving", "/usr/bin", "/etc", "/run/reranker"])
def test_nothing_can_be_written_where_programs_and_keys_are(deployed: Any, directory: str) -> None:
    done = shell(deployed.place.container, f"touch {directory}/written")
    assert done.returncode == 1
    # Not only for want of permission: the file system itself is read-only.
    mounted = [line.split() for line in shell(deployed.place.container, "cat /proc/self/mounts").stdout.splitlines()]
    above = [mount for mount in mounted if directory == mount[1] or directory.startswith(mount[1].rstrip("/") + "/")]
    assert "ro" in max(above, key=lambda mount: len(mount[1]))[3].split(",")


@pytest.mark.parametrize("directory", ["/tmp", "/var/lib/reranker", "/dev/shm"])
def test_what_a_server_has_to_write_it_can(deployed: Any, directory: str) -> None:
    assert shell(deployed.place.container, f"touch {directory}/written && rm {directory}/written").returncode == 0


def test_the_kernel_holds_it_to_its_cpus_memory_and_no_swap(deployed: Any) -> None:
    group = shell(
        deployed.place.container,
        """
        if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
          cd /sys/fs/cgroup; awk '{print $1 / $2}' cpu.max; cat memory.max; cat memory.swap.max
        else
          cd /sys/fs/cgroup
          echo "$(cat cpu/cpu.cfs_quota_us) $(cat cpu/cpu.cfs_period_us)" | awk '{print $1 / $2}'
          limit=$(cat memory/memory.limit_in_bytes); echo "$limit"
          echo $(( $(cat memory/memory.memsw.limit_in_bytes) - limit ))
        fi
        """,
    )
    assert (group.stdout.split(), group.stderr) == (["1", str(2 * GIB), "0"], "")


def test_shared_memory_has_the_size_that_was_asked_for(deployed: Any) -> None:
    script = "import os; at = os.statvfs('/dev/shm'); print(at.f_frsize * at.f_blocks)"
    assert shell(deployed.place.container, f'python3 -c "{script}"').stdout.strip() == str(GIB)


def test_process_one_reaps_what_others_leave(deployed: Any) -> None:
    assert shell(deployed.place.container, "cat /proc/1/cmdline").stdout.split("\0")[0].endswith("init")


def test_logs_are_rotated(inspected: dict[str, Any]) -> None:
    assert inspected["HostConfig"]["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}}


def test_it_comes_back_after_a_restart_of_the_daemon(inspected: dict[str, Any]) -> None:
    assert inspected["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"


def test_the_port_is_published_on_the_loopback_alone(deployed: Any, inspected: dict[str, Any]) -> None:
    assert inspected["NetworkSettings"]["Ports"] == {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(deployed.port)}]}
    assert requests.get(f"{deployed.url}/health", timeout=30).status_code == 200
    if not os.environ.get("DOCKER_HOST"):
        own = deployed.place.client.api.inspect_network(deployed.place.network)["IPAM"]["Config"][0]["Gateway"]
        with socket.socket() as probe:
            probe.settimeout(10)
            assert probe.connect_ex((own, deployed.port)) != 0


@pytest.mark.parametrize("route", ["/v1/models", "/version", "/metrics", "/nothing-here"])
def test_a_route_is_closed_without_the_key(deployed: Any, route: str) -> None:
    assert requests.get(deployed.url + route, timeout=30).status_code == 403
    assert requests.get(deployed.url + route, headers={"Authorization": "Bearer wrong"}, timeout=30).status_code == 403
    assert requests.get(deployed.url + route, headers={"Authorization": f"Bearer {deployed.key}"}, timeout=30).status_code in (200, 404)


@pytest.mark.parametrize("route", ["/v1/rerank", "/rerank", "/v2/rerank", "/v1/score", "/score"])
def test_a_rerank_is_refused_without_the_key(deployed: Any, route: str) -> None:
    asked = {"query": "x", "documents": ["x"], "text_1": "x", "text_2": ["x"]}
    assert requests.post(deployed.url + route, json=asked, timeout=30).status_code == 403
    assert requests.post(deployed.url + route, json=asked, headers={"Authorization": f"Bearer {deployed.key}"}, timeout=30).status_code == 200


def test_health_is_open_to_all(deployed: Any) -> None:
    assert requests.get(f"{deployed.url}/health", timeout=30).status_code == 200


def test_the_key_file_is_its_own_and_only_it_reads_it(deployed: Any) -> None:
    found = shell(deployed.place.container, "stat -c '%a %u:%g' /run/reranker /run/reranker/api_keys")
    assert found.stdout.splitlines() == ["700 2000:2000", "400 2000:2000"]


def looked_at(place: Any) -> dict[str, Callable[[], Any]]:
    """Everywhere on the daemon where a key might be seen, and how to look."""
    api = place.client.api
    image = f"{place.container}:mock"
    return {
        "container": lambda: api.inspect_container(place.container),
        "image": lambda: [api.inspect_image(image), api.history(image)],
        "network": lambda: api.inspect_network(place.network, verbose=True),
        "volume": lambda: [api.inspect_volume(f"{place.container}-{name}") for name in ("key", "cache")],
        "logs": lambda: api.logs(place.container).decode(),
        "processes": lambda: api.top(place.container, ps_args="auxwwe"),
        "differences": lambda: api.diff(place.container),
    }


@pytest.mark.parametrize("where", ["container", "image", "network", "volume", "logs", "processes", "differences"])
def test_the_key_is_nowhere_that_docker_shows(deployed: Any, where: str) -> None:
    assert deployed.key not in json.dumps(looked_at(deployed.place)[where]())


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="this system shows no processes under /proc")
def test_the_key_was_in_no_process_s_argv_while_it_was_brought_in(deployed: Any) -> None:
    assert any("key --target /run/reranker/api_keys" in command for command in deployed.commands)
    assert not [command for command in deployed.commands if deployed.key in command]


def test_the_key_is_marked_secret_in_what_is_registered(deployed: Any) -> None:
    holders = [item for item in deployed.done.recorded.resources if deployed.key in json.dumps(dict(item.inputs))]
    assert [(item.name, sorted(item.secrets)) for item in holders] == [("reranker-key-file", ["stdin"])]


def test_ragflow_reranks_by_the_container_s_name(deployed: Any) -> None:
    ranked = ragflow.rerank(
        deployed.running, deployed.inside, model="qwen3-reranker-0.6b", query="What is the capital of France?", documents=DOCUMENTS, key=deployed.key
    )
    assert ranked == [DOCUMENTS[2], DOCUMENTS[1], DOCUMENTS[0]]


def test_the_commands_that_verify_do(deployed: Any) -> None:
    commands = deployed.done.exports["verify"]
    # A stopped RAGFlow cannot be asked.
    asked = [command for command in commands if deployed.stopped not in command]
    assert len(asked) == 2
    for command in asked:
        done = subprocess.run(
            ["/bin/sh", "-c", command], env={**os.environ, "RERANK_API_KEY": deployed.key}, capture_output=True, text=True, timeout=90, check=False
        )
        assert done.returncode == 0, done.stderr
        assert [result["index"] for result in json.loads(done.stdout)["results"]] == [0, 1]
