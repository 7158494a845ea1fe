"""Parts of a request that have more cases than the contract goes through."""

import json

import pytest

from serving.web import api


@pytest.mark.parametrize("given", [True, "true", None, "yes", 1])
def test_documents_come_back_unless_they_are_not_wanted(given: object) -> None:
    limits = api.Limits(names=("m",), documents=10)
    body = {"query": "q", "documents": ["a"], "return_documents": given}
    assert api.parse("/rerank", "application/json", json.dumps(body).encode(), limits).return_documents
    body["return_documents"] = False
    assert not api.parse("/rerank", "application/json; charset=utf-8", json.dumps(body).encode(), limits).return_documents
