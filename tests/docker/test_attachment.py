"""RAGFlow's containers on the reranker's network: joined, healed, and left alone where they are not ours."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import ragflow


@pytest.fixture
def standin(deployed: Any) -> Iterator[str]:
    """One more RAGFlow beside those of the deployed stack, which attached it; gone afterwards, and forgotten."""
    name = deployed.place.standin("more-ragflow-cpu-1")
    deployed.place.up()
    yield name
    ragflow.remove(deployed.place.client, name)
    deployed.place.up()


def reranks(deployed: Any, name: str) -> bool:
    documents = ["Bananas are yellow", "Paris is the capital of France"]
    asked = {"model": deployed.done.exports["modelName"], "query": "the capital of France", "documents": documents, "key": deployed.key}
    return ragflow.rerank(name, deployed.inside, **asked) == documents[::-1]


def test_running_and_stopped_ragflows_are_attached_and_listed(deployed: Any) -> None:
    client, network = deployed.place.client, deployed.place.network
    assert deployed.done.exports["attachedContainers"] == [deployed.running, deployed.stopped]
    assert network in ragflow.networks(client, deployed.running) & ragflow.networks(client, deployed.stopped)


def test_a_ragflow_that_was_stopped_reranks_once_it_is_started(deployed: Any) -> None:
    container = deployed.place.client.containers.get(deployed.stopped)
    container.start()
    try:
        assert reranks(deployed, deployed.stopped)
    finally:
        container.stop(timeout=0)


def test_a_ragflow_that_was_made_anew_is_attached_anew(deployed: Any, standin: str) -> None:
    deployed.place.standin("more-ragflow-cpu-1")
    assert deployed.place.network not in ragflow.networks(deployed.place.client, standin)
    assert deployed.place.up().news == {f"ragflow-{standin}": "replace"}
    assert reranks(deployed, standin)
    assert deployed.place.up().news == {}


def test_a_ragflow_that_was_cut_off_is_attached_anew(deployed: Any, standin: str) -> None:
    deployed.place.client.networks.get(deployed.place.network).disconnect(standin)
    assert deployed.place.up().news == {f"ragflow-{standin}": "replace"}
    assert reranks(deployed, standin)
    assert deployed.place.up().news == {}


def test_a_ragflow_that_is_gone_for_good_is_forgotten(deployed: Any, standin: str) -> None:
    ragflow.remove(deployed.place.client, standin)
    assert deployed.place.up().news == {f"ragflow-{standin}": "delete"}


def test_what_somebody_else_attached_stays_when_we_let_go(deployed: Any, standin: str) -> None:
    place = deployed.place
    network = place.client.networks.get(place.network)
    network.disconnect(standin)
    network.connect(standin)
    place.up()
    assert place.up(ragflowContainers=[deployed.running, deployed.stopped]).changes[f"ragflow-{standin}"] == "delete"
    assert place.network in ragflow.networks(place.client, standin)
    network.disconnect(standin)


def test_what_we_attached_goes_when_we_let_go(deployed: Any, standin: str) -> None:
    place = deployed.place
    before = ragflow.networks(place.client, standin)
    assert place.up(ragflowContainers=[deployed.running, deployed.stopped]).news == {f"ragflow-{standin}": "delete"}
    assert ragflow.networks(place.client, standin) == before - {place.network}


@pytest.mark.parametrize(("suffix", "service"), [("ragflow-mysql", "mysql"), ("ragflow-mysql-1", ""), ("ragflow-es-01", "es01"), ("redis", "redis")])
def test_ragflow_s_databases_are_never_touched(deployed: Any, suffix: str, service: str) -> None:
    name = deployed.place.standin(suffix, service=service)
    before = deployed.place.client.api.inspect_container(name)
    try:
        done = deployed.place.up()
        assert (done.news, name in done.exports["attachedContainers"]) == ({}, False)
        assert deployed.place.client.api.inspect_container(name) == before
    finally:
        ragflow.remove(deployed.place.client, name)


def test_a_container_named_in_the_configuration_is_attached_whatever_it_looks_like(deployed: Any) -> None:
    place = deployed.place
    name = place.standin("something-of-mine", service="")
    try:
        done = place.up(ragflowContainers=[deployed.running, deployed.stopped, name])
        assert done.news == {f"ragflow-{name}": "create"}
        assert reranks(deployed, name)
    finally:
        place.up()
        ragflow.remove(place.client, name)


def test_join_puts_the_reranker_on_ragflow_s_own_network_and_outlasts_its_re_creation(place: Any) -> None:
    own = f"{place.token}_ragflow"
    place.made_by_hand(own)
    name = place.standin(network=own)
    done = place.up(ragflowMode="join")
    assert (done.exports["networkName"], done.exports["attachedContainers"]) == (own, [name])
    assert ragflow.networks(place.client, place.container) == {own}
    place.standin(network=own)
    documents = ["Bananas are yellow", "Paris is the capital of France"]
    asked = {"model": done.exports["modelName"], "query": "capital of France", "documents": documents}
    assert ragflow.rerank(name, done.exports["internalUrl"], **asked) == documents[::-1]
    assert place.up(ragflowMode="join").news == {}
    place.stack.down()
    assert place.remains() == sorted([own, name])
    assert ragflow.networks(place.client, name) == {own}
