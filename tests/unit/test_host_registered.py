"""host/registered.py: what a preview learns of RAGFlow, and what it does where RAGFlow does not say."""

import pytest

from host.registered import NotRegistrable, Registered, observe
from registration.api import Api
from registration.calls import Call
from registration.entry import Entry, Place
from registration.transport import Answer, Transport, Unreachable
from registration.verbs import register
from tests.support.ragflow_api import KEY, RagflowApi

ENTRY = Entry(instance="ragflow-vllm-reranker", model="qwen3-reranker-0.6b", base_url="http://ragflow-vllm-reranker:8000/v1", max_tokens=4096)
PLACE = Place(url="http://box:9380", key=KEY)
ALL = ("v0.24.0", "v0.25.2", "v0.26.4", "v0.27.0")


def a_ragflow(version: str = "v0.27.0") -> RagflowApi:
    return RagflowApi(version, verify=lambda *_: "")


def seen(send: Transport) -> Registered:
    return observe(PLACE, ENTRY, surroundings={}, send=send)


@pytest.mark.parametrize("version", ALL)
def test_what_stands_as_wanted_is_nothing_found_however_often_it_is_looked_at(version: str) -> None:
    ragflow = a_ragflow(version)
    register(Api(ragflow.send()), ENTRY)
    ragflow.asked.clear()
    assert seen(ragflow.send()) == seen(ragflow.send()) == Registered()
    assert ragflow.writes() == []


@pytest.mark.parametrize("version", ALL)
def test_what_is_not_there_is_found_anew_each_time(version: str) -> None:
    ragflow = a_ragflow(version)
    first, second = seen(ragflow.send()), seen(ragflow.send())
    assert first.found.startswith("not in RAGFlow (")
    assert first.note == second.note == "RAGFlow does not have the reranker: up enters it"
    assert first.found != second.found
    assert ragflow.writes() == []


def test_every_difference_is_named() -> None:
    ragflow = a_ragflow()
    register(Api(ragflow.send()), ENTRY)
    ragflow.instances[0].base_url, ragflow.instances[0].models[ENTRY.model].max_tokens = "http://other/v1", 7
    held, said = seen(ragflow.send()), f"base URL http://other/v1 instead of {ENTRY.base_url}; max tokens 7 instead of 4096"
    assert held.found.startswith(f"{said} (")
    assert held.note == f"RAGFlow has the reranker with {said}: up puts that right"


def test_a_ragflow_that_does_not_answer_is_a_warning_and_no_change() -> None:
    def silent(_: Call) -> Answer:
        raise Unreachable("http://box:9380 does not answer (timed out)")

    assert seen(silent) == Registered(
        warning="ragflowUrl: whether RAGFlow still holds the reranker was not looked up: http://box:9380 does not answer (timed out); "
        "a change there by hand would not show"
    )


def test_something_else_at_that_address_is_a_warning_and_no_change() -> None:
    held = seen(lambda _: Answer(status=502, text="<html>"))
    assert held.found == ""
    assert "answered 502 and nothing that RAGFlow would say" in held.warning


def test_a_key_that_is_not_taken_is_refused_before_anything_changes() -> None:
    with pytest.raises(NotRegistrable, match=r"^ragflowApiKey: RAGFlow does not take the value \(not shown\); make a key"):
        seen(a_ragflow().send("another"))


def test_a_release_without_a_way_is_refused_before_anything_changes() -> None:
    old = RagflowApi("v0.24.0", says="v0.23.1")
    with pytest.raises(NotRegistrable, match=r"^ragflowUrl: RAGFlow v0.23.1 takes no API key where models are added; add the model by hand"):
        seen(old.send())
