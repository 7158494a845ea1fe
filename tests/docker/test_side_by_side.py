"""More than one of everything on one daemon: networks of others, stacks of others, containers of others, and what a killed up left."""

from typing import Any

import pulumi
import pytest

from tests.support import ragflow

DOCUMENTS = ["Bananas are yellow", "Paris is the capital of France"]


def reranks(name: str, done: Any, **key: str) -> bool:
    asked = ragflow.rerank(name, done.exports["internalUrl"], model=done.exports["modelName"], query="capital of France", documents=DOCUMENTS, **key)
    return asked == DOCUMENTS[::-1]


def test_a_network_made_by_hand_is_used_and_never_deleted(place: Any) -> None:
    id_ = place.made_by_hand(place.network)
    running, stopped = place.standin(), place.standin("ragflow-gpu-1", running=False)
    other = place.standin("neighbour", service="", network=place.network)
    before = {name: ragflow.networks(place.client, name) for name in (running, stopped, other)}
    done = place.up()
    assert done.exports["networkName"] == place.network
    assert "network-bridge" not in done.changes
    assert reranks(running, done)
    place.stack.down()
    assert place.client.networks.get(place.network).id == id_
    assert {name: ragflow.networks(place.client, name) for name in before} == before
    assert place.remains() == sorted([place.network, running, stopped, other])


def test_two_stacks_on_one_daemon_serve_one_ragflow_and_one_goes_without_the_other(deployed: Any, place: Any) -> None:
    first = deployed.place
    both = place.standin()
    done = place.up()
    attached = first.stack.up(first.config, sees=lambda container: first.sees(container) or container.name == both)
    assert attached.news == {f"ragflow-{both}": "create"}
    assert reranks(both, done)
    assert reranks(both, deployed.done, key=deployed.key)
    place.stack.down()
    assert place.remains() == [both]
    assert reranks(both, deployed.done, key=deployed.key)
    assert first.up().news == {f"ragflow-{both}": "delete"}


def test_a_container_of_others_under_our_name_is_refused_and_untouched(place: Any) -> None:
    name = place.standin("reranker", service="")
    before = place.client.api.inspect_container(name)
    with pytest.raises(pulumi.RunError) as refusal:
        place.up()
    assert f"containerName: a container '{name}' exists already, and this project did not make it" in str(refusal.value)
    assert place.client.api.inspect_container(name) == before
    assert place.remains() == [name]


def test_a_container_of_another_deployment_under_our_name_is_refused_with_its_identity_although_the_stack_has_one_name(deployed: Any) -> None:
    theirs = deployed.place
    before = theirs.client.api.inspect_container(theirs.container)["Id"]
    own, theirs.stack.state = theirs.stack.state, {}
    try:
        with pytest.raises(
            pulumi.RunError, match=f"exist already, made by another deployment, [0-9a-f]{{8}} .ragflow-reranker/{theirs.stack.name}, "
        ):
            theirs.up()
    finally:
        theirs.stack.state = own
    assert theirs.client.api.inspect_container(theirs.container)["Id"] == before


def test_what_a_killed_up_made_does_not_stand_in_the_way_of_the_next(place: Any) -> None:
    place.up()
    first = place.client.api.inspect_container(place.container)["Id"]
    for urn in [urn for urn in place.stack.state if urn.endswith(("::reranker-container", "::reranker-healthy"))]:
        del place.stack.state[urn]
    assert place.up().news == {"reranker-container": "create", "reranker-healthy": "create"}
    assert place.client.api.inspect_container(place.container)["Id"] != first


def test_a_key_volume_that_was_lost_is_written_anew_and_the_container_with_it(place: Any) -> None:
    config = {"apiKey": "sk-rrd-lost-and-found"}
    name = place.standin()
    place.up(**config)
    place.client.api.remove_container(place.container, force=True)
    place.client.api.remove_volume(f"{place.container}-key")
    done = place.up(**config)
    assert set(done.news) == {"reranker-key", "reranker-key-released", "reranker-key-file", "reranker-container", "reranker-healthy"}
    assert reranks(name, done, key=config["apiKey"])


def test_a_changed_key_opens_and_the_one_before_it_no_longer_does(place: Any) -> None:
    name = place.standin()
    place.up(apiKey="sk-rrd-the-first")
    done = place.up(apiKey="sk-rrd-the-second")
    assert done.news == {"reranker-key-file": "update", "reranker-container": "replace", "reranker-healthy": "replace"}
    assert reranks(name, done, key="sk-rrd-the-second")
    assert ragflow.curl(name, f"{done.exports['internalUrl']}/models", key="sk-rrd-the-first")[0] == 403
