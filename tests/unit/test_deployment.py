"""deployment.py: which deployment a stack is, by what its state holds, what its backend remembers, and where it is applied from."""

from pathlib import Path
from typing import Any

import pulumi
import pytest

import deployment
from deployment import Place
from host import labels
from host.neighbours import Names, refusals, shared
from tests.support.recording import Recorded, Recording, run_program
from tests.unit.builders import a_container, a_deployment, a_host, a_network, a_state

STASH = "pulumi:index:Stash"
THEIRS = {labels.OWNER: "ragflow-reranker/test/ffffffff", labels.GENERATION: "4f2a", labels.MADE: "2026-11-24 from desk:/home/kim/reranker"}
OLD = {labels.OWNER: "ragflow-reranker/test", labels.GENERATION: "4f2a"}
NAMES = Names(container="c", steps=("c-populate", "c-key"), volumes=("c-cache", "c-model"))


def up(**options: Any) -> Recorded:
    return run_program({"backend": "mock", "ragflowMode": "none"}, options.pop("host", a_host()), **options)


def test_a_stack_without_state_is_a_new_deployment_each_time() -> None:
    ids = {up().one(STASH).inputs["input"]["id"] for _ in range(3)}
    assert len(ids) == 3


def test_a_stack_is_the_deployment_that_its_state_holds_from_whatever_machine() -> None:
    recorded = up(monitor=Recording(state=a_state()))
    assert recorded.one(STASH).inputs["input"] == a_state()["urn::deployment-identity"]["outputs"]["input"]
    container = recorded.one("docker:index/container:Container")
    assert {"label": labels.OWNER, "value": a_deployment().owner} in container.inputs["labels"]


def test_a_stack_that_was_destroyed_is_the_deployment_that_its_backend_remembers() -> None:
    kept = up(remembered="0a1b2c3d ffffffff").one(STASH).inputs["input"]
    assert (kept["id"], kept["heirOf"]) == ("0a1b2c3d", ["ffffffff"])


def test_what_the_backend_remembers_counts_where_the_engine_has_written_the_new_stack_already() -> None:
    written: dict[str, Any] = {"urn:pulumi:test::ragflow-reranker::pulumi:pulumi:Stack::ragflow-reranker-test": {"outputs": {}}}
    kept = up(remembered="0a1b2c3d", monitor=Recording(state=written)).one(STASH).inputs["input"]
    assert kept["id"] == "0a1b2c3d"


def test_the_identity_is_written_down_before_anything_on_the_host_carries_it() -> None:
    recorded = up()
    written = recorded.one(STASH).urn
    assert written in recorded.one("pulumi:providers:docker").dependencies  # for which every thing of Docker waits
    assert written in recorded.named("network-released").dependencies  # for which the commands wait that nothing of Docker precedes


def test_taking_over_is_noted_for_good_where_the_thing_is_there_and_refused_where_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAKE_OVER", "ffffffff")
    host = a_host(containers=(a_container("ragflow-vllm-reranker", labels=THEIRS),), volumes={"ragflow-vllm-reranker-cache": THEIRS})
    recorded = up(host=host, monitor=Recording(state=a_state()))
    assert recorded.one(STASH).inputs["input"]["heirOf"] == ["ffffffff"]
    assert recorded.named("reranker-cache").inputs["labels"] == [
        {"label": name, "value": THEIRS[name]} for name in (labels.OWNER, labels.GENERATION, labels.MADE)
    ]
    with pytest.raises(pulumi.RunError, match="TAKE_OVER: 'ffffffff' is no other deployment on this Docker host: it has nothing of any"):
        up(monitor=Recording(state=a_state()))


def test_a_copy_of_a_folder_with_its_state_is_told_apart_from_one_that_moved(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    kept = {"machine": "box", "folder": str(there)}
    assert deployment.copied(kept, Place(machine="box", folder=str(here))) == ""
    (there / "state").mkdir(parents=True)
    assert deployment.copied(kept, Place(machine="box", folder=str(here))) == str(there)
    assert deployment.copied(kept, Place(machine="desk", folder=str(here))) == ""
    assert deployment.copied(kept, Place(machine="box", folder=str(there))) == ""


def test_the_state_lists_generations_and_attachments_whatever_else_is_in_it() -> None:
    held: dict[str, dict[str, Any]] = {
        "a": {"labels": [{"label": labels.GENERATION, "value": "4f2a"}, {"label": "x", "value": "y"}]},
        "b": {"environment": {"ATTACHMENT": "attachment-1"}},
        "c": {"labels": {"4dabf18193072939515e22adb298388d": "secret"}, "environment": "secret"},
    }
    assert set(deployment.incarnations(held)) == {"4f2a", "attachment-1"}


def test_a_state_that_is_being_written_is_read_again() -> None:
    whole = {"outputs": a_state()}
    answers: list[Any] = [Exception("failed to load checkpoint: EOF"), {"outputs": {}}, whole]
    slept: list[float] = []

    def ask(_: str) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert deployment.state("o/p/s", ask=ask, sleep=slept.append) == {}
    assert len(slept) == 1
    answers[:] = [{"outputs": {}}, whole]
    assert deployment.identity(deployment.state("o/p/s", ask=ask, sleep=slept.append)) is not None
    answers[:] = [Exception("no such bucket")] * deployment.TRIES
    with pytest.raises(Exception, match="no such bucket"):
        deployment.state("o/p/s", ask=ask, sleep=slept.append)


# -- what stands on the host under our names ----------------------------------------------------------------------------


def test_all_of_another_deployment_is_one_sentence_with_both_ways_out() -> None:
    host = a_host(containers=(a_container("c", labels=THEIRS),), volumes={"c-cache": THEIRS, "c-model": THEIRS, "other": OLD})
    assert refusals(NAMES, host, a_deployment()) == [
        "containerName: container 'c', volume 'c-cache' and volume 'c-model' exist already, made by another deployment, ffffffff (ragflow-reranker/test, "
        "2026-11-24 from desk:/home/kim/reranker). To have both, choose another containerName and hostPort (the network is shared): pulumi config set -s test "
        "containerName c-2. To take over what is there, on purpose or after lost state: make up STACK=test TAKE_OVER=ffffffff"
    ]


def test_what_the_same_stack_name_made_before_there_were_identities_is_not_taken_on_trust() -> None:
    [said] = refusals(NAMES, a_host(volumes={"c-model": OLD}), a_deployment())
    assert said.startswith(
        "containerName: volume 'c-model' exists already, made by the stack ragflow-reranker/test of another checkout or lost state"
    )
    assert said.endswith("make up STACK=test TAKE_OVER=ragflow-reranker/test")
    assert refusals(NAMES, a_host(volumes={"c-model": OLD}), a_deployment(known=frozenset({"4f2a"}))) == []
    assert refusals(NAMES, a_host(volumes={"c-model": OLD}), a_deployment(taking="ragflow-reranker/test", heir_of=("ragflow-reranker/test",))) == []


def test_a_volume_that_nobody_labelled_is_not_taken_for_its_name() -> None:
    [said] = refusals(NAMES, a_host(volumes={"c-cache": {}}), a_deployment())
    assert said.endswith("remove it (docker volume rm c-cache), or choose another name")


def test_a_step_of_another_deployment_that_is_at_work_is_waited_for() -> None:
    [said] = refusals(NAMES, a_host(containers=(a_container("c-populate", labels=THEIRS),)), a_deployment(taking="ffffffff", heir_of=("ffffffff",)))
    assert said.startswith("containerName: a container 'c-populate' is there, made by another deployment, ffffffff")
    assert said.endswith("wait until it ends, or docker rm -f c-populate")


def test_a_network_is_shared_with_whoever_made_it_and_said_to_be() -> None:
    host = a_host(networks={"n": a_network("n", labels=THEIRS), "hand": a_network("hand")})
    assert shared(host, "n", a_deployment()).startswith("networkName: network 'n' is shared, made by another deployment, ffffffff")
    assert shared(host, "hand", a_deployment()) == shared(host, "none", a_deployment()) == ""
    assert shared(host, "n", a_deployment(heir_of=("ffffffff",))) == ""
