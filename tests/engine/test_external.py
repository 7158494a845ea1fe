"""backend external: nothing is deployed; the service is asked whether it serves the model."""

from collections.abc import Callable

import pytest

from tests.support.engine import Project


@pytest.fixture
def outside(project: Callable[..., Project], stack: Project) -> Project:
    """A stack that points at the reranker of another stack, as at any service that runs elsewhere."""
    built = project(backend="external", externalUrl=f"http://127.0.0.1:{stack.port}/v1", externalModel="qwen3-reranker-0.6b", hostPort=None)
    built.set_key(stack.key)
    return built


def test_an_external_service_is_described_and_nothing_is_deployed(outside: Project, stack: Project) -> None:
    outside.settle()
    assert outside.resources() == []
    assert outside.remains() == {}
    found = outside.outputs()
    assert set(found) == set(stack.outputs())
    assert found["internalUrl"] == found["hostUrl"] == f"http://127.0.0.1:{stack.port}/v1"
    assert found["modelName"] == "qwen3-reranker-0.6b"
    assert "Outputs:" not in outside.shown()
    outside.destroy()


def test_an_external_model_that_is_not_served_is_refused_with_those_that_are(outside: Project) -> None:
    outside.set(externalModel="bge-reranker-v2-m3")
    text = outside.refusal()
    assert "externalModel: 'bge-reranker-v2-m3' is not served by" in text
    assert "it serves qwen3-reranker-0.6b" in text
    assert "Traceback" not in text


def test_an_external_service_that_wants_another_key_is_refused(outside: Project) -> None:
    outside.set_key("not-the-right-one")
    text = outside.refusal()
    assert "answered 403; set the key it wants: pulumi config set --secret apiKey" in text
    assert "not-the-right-one" not in text


def test_an_external_service_that_does_not_answer_is_refused(outside: Project) -> None:
    outside.set(externalUrl="http://127.0.0.1:9/v1")
    text = outside.refusal()
    assert "externalUrl: http://127.0.0.1:9/v1 does not answer" in text
    assert "Traceback" not in text
