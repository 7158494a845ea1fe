"""The contract of every backend, held by the mock: the same service, without a model."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import cohere
import pytest

from serving.health import probe
from serving.launch import mock
from serving.options import ServiceOptions
from tests.support import asgi, ragflow_client
from tests.support.engine import wait_until
from tests.support.options import service_options

pytest.register_assert_rewrite("tests.support.contract")
from tests.support import contract  # noqa: E402

OPTIONS = service_options(
    served_model_names=("qwen3-reranker-0.6b",),
    max_model_len=2048,
    max_query_tokens=512,
    max_body_mib=2,
)
KEYS = ("first-s3cret", "second-s3cret")
FUZZED = 1_500


def service(address: tuple[str, int], *keys: str) -> contract.Service:
    return contract.Service(
        ask=contract.Http("http://{}:{}".format(*address)),
        names=OPTIONS.served_model_names,
        max_model_len=OPTIONS.max_model_len,
        max_documents=OPTIONS.max_documents,
        max_query_tokens=OPTIONS.max_query_tokens,
        max_body_bytes=OPTIONS.max_body_mib << 20,
        keys=keys,
    )


@contextlib.contextmanager
def healthy(options: ServiceOptions) -> Iterator[tuple[str, int]]:
    """Where the mock is served, once it is well: after a start it is not, for a moment."""
    with asgi.running(mock.build(options)) as found:
        wait_until(lambda: probe.check(found) == "", seconds=10, every=0.01)
        yield found


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    with healthy(OPTIONS) as found:
        yield found


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    file: Path = tmp_path_factory.mktemp("key") / "api_keys"
    file.write_text("".join(f"{key}\n" for key in KEYS))
    with healthy(dataclasses.replace(OPTIONS, api_key_file=str(file))) as found:
        yield found


class TestOpen(contract.Contract):
    @pytest.fixture
    def service(self, address: tuple[str, int]) -> Iterator[contract.Service]:
        asked = service(address)
        yield asked
        asked.ask.close()


class TestWithKeys(contract.Contract, contract.KeyContract):
    @pytest.fixture
    def service(self, locked: tuple[str, int]) -> Iterator[contract.Service]:
        asked = service(locked, *KEYS)
        yield asked
        asked.ask.close()


@pytest.mark.parametrize("keys", [(), KEYS], ids=["open", "with keys"])
def test_malformed_requests_get_4xx_and_the_next_call_is_answered(request: pytest.FixtureRequest, keys: tuple[str, ...]) -> None:
    place = request.getfixturevalue("locked" if keys else "address")
    asked = service(place, *keys)
    fuzzed = contract.fuzz(lambda: contract.Http("http://{}:{}".format(*place), timeout=20), FUZZED, seed=4, authorized=asked.authorized)
    assert not fuzzed.faults, "\n".join(fuzzed.faults[:20])
    assert fuzzed.statuses.total() == FUZZED
    # Else it did not reach what it is meant to try.
    assert fuzzed.statuses[400] > FUZZED / 3
    assert min(fuzzed.statuses[status] for status in (200, 404, 405)) > FUZZED / 200
    contract.assert_serves(asked)
    asked.ask.close()


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/"])
def test_ragflows_own_client_reads_the_answer_whatever_the_base_url_ends_with(locked: tuple[str, int], path: str) -> None:
    url = "http://{}:{}".format(*locked) + path
    found = ragflow_client.rerank(url, "/models/qwen3-reranker-0.6b", KEYS[1], contract.QUERY, contract.DOCUMENTS)
    assert sorted(found) == [0, 1, 2]
    assert max(found, key=lambda place: found[place]) == 1
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_ragflows_own_client_is_told_that_its_key_is_wrong(locked: tuple[str, int]) -> None:
    with pytest.raises(cohere.ForbiddenError):
        ragflow_client.rerank("http://{}:{}/v1".format(*locked), "qwen3-reranker-0.6b", "wrong", contract.QUERY, contract.DOCUMENTS)
