"""make verify against real containers: without python and curl, behind a proxy, stopped, cut off, and two RAGFlows of any project."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from setup import verify
from setup.edge import Edge
from setup.verify import Outcome, Target
from tests.support import ragflow
from tests.support.processes import Watch

PROXY = "http://me:pr0xy-s3cret@proxy.example:3128"
NOWHERE = "/nowhere"  # as PATH: neither python3 nor curl nor wget


@pytest.fixture
def target(deployed: Any, monkeypatch: pytest.MonkeyPatch) -> Target:
    """The deployed stack, as make verify knows it. Containers of other tests are out of its sight."""
    look = verify.look
    monkeypatch.setattr(verify, "look", lambda edge, target: [one for one in look(edge, target) if deployed.place.sees(one.container)])
    return target_of(deployed.done, deployed.key)


def target_of(done: Any, key: str = "") -> Target:
    found = done.exports
    return Target(
        url=found["internalUrl"],
        host_url=found["hostUrl"],
        model=found["modelName"],
        key=key,
        container=found["containerName"],
        network=found["networkName"],
        attached=found["attachedContainers"],
    )


def told(outcome: Outcome) -> dict[str, tuple[str, str]]:
    assert len({one.where for one in outcome.shown}) == len(outcome.shown), outcome.shown
    return {one.where: (one.level, one.text) for one in outcome.shown}


@pytest.fixture
def more(deployed: Any) -> Iterator[Any]:
    """Makes one more stand-in, by default on the reranker's network; all of them go afterwards."""
    made: list[str] = []

    def make(suffix: str, **options: Any) -> str:
        made.append(deployed.place.standin(suffix, **{"network": deployed.place.network, **options}))
        return made[-1]

    yield make
    for name in made:
        ragflow.remove(deployed.place.client, name)


def test_a_ragflow_that_runs_is_asked_and_a_stopped_one_is_told(deployed: Any, target: Target) -> None:
    outcome = verify.run(Edge.real(), target)
    shown = told(outcome)
    assert outcome.right
    assert set(shown) == {f"inside {deployed.running}", f"inside {deployed.stopped}", "the Docker host"}
    assert shown[f"inside {deployed.running}"][1].startswith("the document about Paris scored ")
    assert shown[f"inside {deployed.stopped}"] == ("note", "it is not running (exited), so nothing was asked from there")
    assert outcome.tokens_per_second > 0


@pytest.mark.parametrize("environment", [{"PATH": NOWHERE}, {"PATH": NOWHERE, "no_proxy": "NAME", "http_proxy": PROXY}])
def test_a_container_without_python_and_curl_is_asked_from_beside_and_nothing_of_that_stays(
    deployed: Any, target: Target, more: Any, environment: dict[str, str]
) -> None:
    bare = more("bare-ragflow-cpu-1", environment={name: value.replace("NAME", target.container) for name, value in environment.items()})
    before = deployed.place.remains()
    image = deployed.place.client.api.inspect_container(deployed.place.container)["Image"]

    def of_its_image() -> set[str]:
        return {container.id for container in deployed.place.client.containers.list(all=True, filters={"ancestor": image})}

    beside = of_its_image()
    shown = told(verify.run(Edge.real(), target))
    assert shown[f"inside {bare}"][0] == "right", shown
    assert deployed.place.remains() == before
    assert of_its_image() <= beside


@pytest.mark.parametrize("path", ["", NOWHERE])
def test_a_proxy_that_takes_the_call_is_named_with_the_no_proxy_to_set(target: Target, more: Any, path: str) -> None:
    environment = {"HTTP_PROXY": PROXY, "NO_PROXY": "localhost", **({"PATH": path} if path else {})}
    proxied = more("proxied-ragflow-cpu-1", environment=environment)
    level, text = told(verify.run(Edge.real(), target))[f"inside {proxied}"]
    assert level == "WRONG"
    assert text.startswith("its HTTP_PROXY=http://proxy.example:3128 sends the call to a proxy, because its no_proxy does not name ")
    assert f"set both NO_PROXY and no_proxy to localhost,{target.container} where" in text
    assert "Past the proxy it is right: " in text


def test_a_ragflow_that_is_not_on_the_network_is_told_what_to_do(target: Target, more: Any) -> None:
    apart = more("apart-ragflow-cpu-1", network=None)
    assert told(verify.run(Edge.real(), target))[f"inside {apart}"] == (
        "WRONG",
        f"it is not on the network {target.network}: it was made anew or cut off since the last up; run make up again",
    )


def test_a_name_that_leads_elsewhere_is_told_with_where(deployed: Any, target: Target, more: Any) -> None:
    misled = more("misled-ragflow-cpu-1")
    deployed.place.client.containers.get(misled).exec_run(["/bin/sh", "-c", f"echo 192.0.2.7 {target.container} >> /etc/hosts"], user="root")
    level, text = told(verify.run(Edge.real(), target))[f"inside {misled}"]
    assert (level, text.split(" there ")[0]) == ("WRONG", f"the name {target.container} leads to 192.0.2.7")


def test_another_key_than_the_rerankers_is_told_from_everywhere(deployed: Any, target: Target) -> None:
    shown = told(verify.run(Edge.real(), dataclasses.replace(target, key="sk-of-yesterday")))
    for where in (f"inside {deployed.running}", "the Docker host"):
        assert shown[where][0] == "WRONG"
        assert "the stack's apiKey is another than the one the reranker was started with: run make up again" in shown[where][1]


def test_neither_the_key_nor_a_proxys_password_is_in_any_argv(deployed: Any, target: Target, more: Any) -> None:
    more("bare-ragflow-cpu-1", environment={"PATH": NOWHERE, "http_proxy": PROXY, "no_proxy": "*"})
    with Watch() as watch:
        outcome = verify.run(Edge.real(), target)
    assert outcome.right, outcome.shown
    assert any("python3 -" in line for line in watch.seen)
    assert [line for line in watch.seen if deployed.key in line or "pr0xy-s3cret" in line] == []


def test_a_reranker_that_stopped_is_one_line_and_nobody_is_asked(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    place.standin()
    done = place.up()
    look = verify.look
    monkeypatch.setattr(verify, "look", lambda edge, target: [one for one in look(edge, target) if place.sees(one.container)])
    place.client.containers.get(place.container).stop(timeout=0)
    shown = verify.run(Edge.real(), target_of(done)).shown
    assert [(one.where, one.level) for one in shown] == [(place.container, "WRONG")]
    assert shown[0].text.endswith("says why, make up starts it again")


def test_two_ragflows_of_projects_of_any_name_are_attached_and_asked_and_one_offs_and_executors_left_alone(
    place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving: Sequence[str] = [
        place.standin("legal-ragflow-1", project="legal", service="ragflow"),
        place.standin("team-a-ragflow-gpu-1", project="team-a"),
    ]
    one_off = place.standin("docker-ragflow-cpu-run-1f2e3d", labels={"com.docker.compose.oneoff": "True"})
    executor = place.standin("docker-ragflow-cpu-2", arguments=["--disable-webserver", "--workers=2"])
    before = {name: place.client.api.inspect_container(name) for name in (one_off, executor)}
    done = place.up()
    assert done.exports["attachedContainers"] == serving
    look = verify.look
    monkeypatch.setattr(verify, "look", lambda edge, target: [one for one in look(edge, target) if place.sees(one.container)])
    assert {where: level for where, (level, _) in told(verify.run(Edge.real(), target_of(done))).items()} == {
        f"inside {name}": "right" for name in serving
    }
    assert {name: place.client.api.inspect_container(name) for name in before} == before
