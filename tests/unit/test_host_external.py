"""host/external.py against a session that answers from a table: what is asked, and the sentence for each wrong service."""

import json
from typing import Any

import pytest
import requests

from host.external import TIMEOUT_SECONDS, ExternalArgs, ExternalError, verify

URL = "http://box:8000/v1"
KEY = "sk-a-key-that-nobody-sees"
MODELS = {"object": "list", "data": [{"id": "qwen3-reranker-0.6b"}, {"id": "bge"}]}


class Session(requests.Session):
    """Answers every GET alike and keeps what was asked."""

    def __init__(self, answer: Any, status: int = 200) -> None:
        super().__init__()
        self.answer, self.status = answer, status
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def get(self, url: Any, **options: Any) -> requests.Response:
        self.asked.append((url, options))
        if isinstance(self.answer, Exception):
            raise self.answer
        response = requests.Response()
        response.status_code = self.status
        response._content = self.answer if isinstance(self.answer, bytes) else json.dumps(self.answer).encode()
        return response


def args(**changed: Any) -> ExternalArgs:
    return ExternalArgs(**{"url": URL, "model": "qwen3-reranker-0.6b", "api_key": "", **changed})


@pytest.mark.parametrize("url", [URL, f"{URL}/", f"{URL}//"])
def test_a_service_that_lists_the_model_is_taken_with_its_url_in_one_spelling(url: str) -> None:
    session = Session(MODELS)
    assert verify(args(url=url), session=session) == URL
    assert session.asked == [(f"{URL}/models", {"headers": {}, "timeout": TIMEOUT_SECONDS})]


def test_a_key_is_sent_as_callers_will_send_it() -> None:
    session = Session(MODELS)
    verify(args(api_key=KEY), session=session)
    assert session.asked[0][1]["headers"] == {"Authorization": f"Bearer {KEY}"}


NO_LISTS: list[Any] = [b"<html>", b"", {}, [], "text", None, {"data": None}, {"data": [1]}, {"data": [{}]}]
WRONG: list[tuple[Any, int, str]] = [
    (requests.ConnectionError("refused"), 200, f"externalUrl: {URL} does not answer (ConnectionError); start the service, or correct the URL"),
    (requests.ReadTimeout("slow"), 200, f"externalUrl: {URL} does not answer (ReadTimeout); start the service, or correct the URL"),
    (b"no", 401, f"apiKey: {URL} answered 401; set the key it wants: pulumi config set --secret apiKey"),
    (b"no", 403, f"apiKey: {URL} answered 403; set the key it wants: pulumi config set --secret apiKey"),
    (b"no", 404, f"externalUrl: {URL}/models answered 404; the base URL of an OpenAI-style service usually ends in /v1"),
    (b"no", 503, f"externalUrl: {URL}/models answered 503; the base URL of an OpenAI-style service usually ends in /v1"),
    *[(answer, 200, f"externalUrl: {URL}/models answered no list of models; is this a rerank service's base URL?") for answer in NO_LISTS],
    ({"data": []}, 200, f"externalModel: 'qwen3-reranker-0.6b' is not served by {URL}; it serves none"),
    ({"data": [{"id": "bge"}, {"id": "jina"}]}, 200, f"externalModel: 'qwen3-reranker-0.6b' is not served by {URL}; it serves bge, jina"),
]


@pytest.mark.parametrize(("answer", "status", "sentence"), WRONG)
def test_a_service_that_cannot_be_used_is_put_into_one_sentence_with_the_remedy(answer: Any, status: int, sentence: str) -> None:
    with pytest.raises(ExternalError) as refused:
        verify(args(api_key=KEY), session=Session(answer, status))
    assert str(refused.value) == sentence


def test_a_repr_of_the_arguments_shows_no_key() -> None:
    assert KEY not in repr(args(api_key=KEY))
