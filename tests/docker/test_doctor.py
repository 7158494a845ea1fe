"""The doctor beside a stack that is up: seen in the reranker's own container, with nothing changed."""

import dataclasses
import os

from host.docker import Docker
from rerank.doctor.look import Doctor, Hasty
from rerank.doctor.stacks import read
from tests.docker.conftest import Deployed
from tests.support.recording import ROOT


def test_a_stack_that_is_up_is_looked_at_from_inside_its_container_and_left_as_it_is(deployed: Deployed) -> None:
    name = str(deployed.done.exports["containerName"])
    stack = read(ROOT, ROOT, "", "")
    settings = dataclasses.replace(
        stack.settings, container_name=name, host_port=deployed.port, memory_gib=1, ragflow_containers=(deployed.running, deployed.stopped)
    )
    stack = dataclasses.replace(stack, settings=settings)
    docker = Docker()
    before = docker("ps", "--all", "--quiet", "--no-trunc", "--filter", f"name={name}")
    edge = Hasty(root=ROOT, home=ROOT, env=dict(os.environ))
    found = {row.name: row for row in Doctor(edge, stack, None).report().rows}
    assert docker("ps", "--all", "--quiet", "--no-trunc", "--filter", f"name={name}") == before
    assert found["container"].text == f"{name} is deployed, and runs"
    assert found["hostPort"].text.endswith("is the reranker's already")
    assert f"(seen in the container {name})" in found["cpu"].text, found["cpu"]
    assert found["cores"].level in ("ok", "warn")
    assert (found["model memory"].level, "GiB of 1.0" in found["model memory"].text) == ("fail", True), found["model memory"]
    assert found["disk"].level != "not seen"
    assert deployed.running in found["RAGFlow"].text
    assert f"{deployed.stopped} (does not run)" in found["RAGFlow"].text
    assert found["base image"].level == "ok"
    assert docker("ps", "--all", "--quiet", "--filter", "name=reranker-doctor") == ""
