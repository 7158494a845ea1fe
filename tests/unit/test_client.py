"""rerank/ against the real service around the mock's engine, over HTTP: what a caller gets, and how calls are split, joined and shared among threads."""

import dataclasses
import pickle
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import rerank
from rerank import InvalidInput, RerankClient, Unauthorised, WrongModel
from serving.engines import mock as engine
from serving.launch import mock
from serving.options import ServiceOptions
from tests.support import asgi
from tests.support.options import service_options

NAME, KEY = "qwen3-reranker-0.6b", "first-s3cret"
OPTIONS = service_options(served_model_names=(NAME,), max_model_len=2048, max_query_tokens=512, max_documents=50, max_body_mib=1, deadline_seconds=60)
QUERY = "What is the capital of China?"
DOCUMENTS = ["Apples grow on trees.", "The capital of China is Beijing.", "China is a large country in Asia."]


def serving(options: ServiceOptions) -> Iterator[str]:
    with asgi.running(mock.build(options)) as (host, port):
        url = f"http://{host}:{port}"
        with RerankClient(url) as client:
            client.wait(10, every=0.01)
        yield url


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    yield from serving(OPTIONS)


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    file: Path = tmp_path_factory.mktemp("key") / "api_keys"
    file.write_text(f"{KEY}\n")
    yield from serving(dataclasses.replace(OPTIONS, api_key_file=str(file)))


@pytest.fixture
def client(url: str) -> Iterator[RerankClient]:
    with RerankClient(url) as made:
        yield made


def expected(query: str, document: str) -> float:
    return engine.score(engine.terms(query), engine.terms(document))


def many(count: int, words: int = 3) -> list[str]:
    """Documents of which each tenth has the same score."""
    return [f"alpha {' '.join(f'w{number}' for number in range(place % 10))} {'x ' * words}" for place in range(count)]


def test_a_rerank_gives_the_best_document_first_with_its_place_score_and_text(client: RerankClient) -> None:
    found = client.rerank(QUERY, DOCUMENTS)
    assert [(item.index, item.document) for item in found.items] == [(1, DOCUMENTS[1]), (2, DOCUMENTS[2]), (0, DOCUMENTS[0])]
    assert [item.score for item in found.items] == [pytest.approx(expected(QUERY, item.document)) for item in found.items]
    assert (found.documents, found.scored, found.cut, found.unscored, found.shortened, found.requests) == (3, 3, (), (), False, 1)
    assert found.model == NAME
    assert found.tokens is not None
    assert found.raw["results"][0]["index"] == 1


def test_a_score_is_in_the_documents_order_and_is_the_score_of_the_rerank(client: RerankClient) -> None:
    ranked = {item.index: item.score for item in client.rerank(QUERY, DOCUMENTS).items}
    found = client.score(QUERY, DOCUMENTS)
    assert found.scores == tuple(ranked[place] for place in range(3))
    assert found.cached == 3
    assert client.score(QUERY, DOCUMENTS, fresh=True).cached == 0


@pytest.mark.parametrize(("top_n", "count"), [(1, 1), (2, 2), (99, 3), (0, 3), (None, 3)])
def test_top_n_gives_the_best_ones_and_0_or_none_gives_all(client: RerankClient, top_n: int | None, count: int) -> None:
    assert [item.index for item in client.rerank(QUERY, DOCUMENTS, top_n).items] == [1, 2, 0][:count]


def test_no_documents_are_no_items_and_nothing_is_sent() -> None:
    nobody = RerankClient("http://127.0.0.1:9")
    assert nobody.rerank(QUERY, []).items == ()
    assert nobody.score(QUERY, []).scores == ()


def test_what_the_service_cut_is_told_by_place(client: RerankClient) -> None:
    found = client.rerank("cut me", ["short", "a long text " * 20, "another long text " * 20], max_tokens_per_doc=7)
    assert (found.cut, found.kept_tokens) == ((1, 2), 7)
    assert client.rerank("cut me " * 600, ["short"]).query_kept_tokens == 512


@pytest.mark.parametrize("count", [50, 51, 100, 237])
def test_more_documents_than_the_service_takes_are_split_and_joined_as_one_call_of_them_all(url: str, count: int) -> None:
    documents = many(count)
    random.Random(count).shuffle(documents)
    right = sorted(range(count), key=lambda place: (-expected("alpha w1 w2 w3", documents[place]), place))
    with RerankClient(url) as fresh:
        found = fresh.rerank("alpha w1 w2 w3", documents, fresh=True)
        assert [item.index for item in found.items] == right
        assert [item.index for item in fresh.rerank("alpha w1 w2 w3", documents, 7).items] == right[:7]
        assert fresh.score("alpha w1 w2 w3", documents).scores == tuple(pytest.approx(expected("alpha w1 w2 w3", document)) for document in documents)
    assert all(item.document == documents[item.index] for item in found.items)
    assert (found.documents, found.scored, found.cached, found.requests) == (count, count, 0, -(-count // 50))
    assert [entry["index"] for entry in found.raw["results"]] == right
    assert found.tokens == found.raw["usage"]["total_tokens"]


def test_places_of_cut_documents_are_those_of_the_whole_call_after_a_split(client: RerankClient) -> None:
    documents = ["word " * 30 if place in (3, 49, 50, 120) else "word" for place in range(130)]
    found = client.rerank("word", documents, max_tokens_per_doc=9)
    assert (found.cut, found.kept_tokens) == ((3, 49, 50, 120), 9)


def test_a_body_larger_than_the_service_takes_is_split_by_its_bytes(url: str) -> None:
    documents = [f"alpha {place} {'ü' * 50_000}" for place in range(40)]  # 4 MB
    with RerankClient(url) as fresh:
        found = fresh.rerank("alpha 7", documents)
        assert found.items[0].index == 7
        assert sorted(item.index for item in found.items) == list(range(40))
        assert found.requests > 3
        assert fresh.rerank("alpha 7", documents).requests == found.requests
        with pytest.raises(rerank.TooLong, match="too large"):
            fresh.rerank("alpha", ["small", "x" * (2 << 20)])


def test_what_the_service_takes_is_learned_once(url: str) -> None:
    with RerankClient(url, retries=0) as fresh:
        for _ in range(2):
            assert fresh.score("alpha", many(120)).requests == 3


def test_sixty_four_threads_share_a_client_and_each_gets_its_own_answer(url: str) -> None:
    with RerankClient(url, timeout=60) as shared, ThreadPoolExecutor(64) as pool:

        def call(number: int) -> bool:
            query, documents = f"alpha q{number}", [f"beta q{other}" for other in range(number % 70)]
            found = shared.rerank(query, documents)
            return {item.index: item.score for item in found.items} == {
                place: pytest.approx(expected(query, document)) for place, document in enumerate(documents)
            }

        assert all(pool.map(call, range(192)))


def test_models_version_and_health_are_what_the_service_says(client: RerankClient) -> None:
    assert client.models() == (NAME,)
    assert client.version() == mock.VERSION
    assert client.health().healthy
    assert client.wait(5).status == "healthy"


def test_a_wrong_model_is_told_with_the_names_there_are(url: str) -> None:
    with RerankClient(url, model="bge-large") as wrong, pytest.raises(WrongModel, match=r"'bge-large'.*It has: qwen3-reranker-0.6b") as caught:
        wrong.rerank(QUERY, DOCUMENTS)
    assert caught.value.names == (NAME,)
    with RerankClient(url, model="Qwen/Qwen3-Reranker-0.6B") as right:
        assert right.rerank(QUERY, DOCUMENTS).items[0].index == 1


def test_a_key_is_asked_for_where_it_is_missing_or_wrong_and_is_in_no_text(locked: str) -> None:
    with RerankClient(locked, api_key=KEY) as right:
        assert right.rerank(QUERY, DOCUMENTS).items[0].index == 1
        assert KEY not in repr(right)
    with RerankClient(locked) as without, pytest.raises(Unauthorised, match=r"is missing.*RERANK_API_KEY"):
        without.rerank(QUERY, DOCUMENTS)
    with RerankClient(locked, api_key="wrong-s3cret") as wrong, pytest.raises(Unauthorised, match="is wrong") as caught:
        wrong.models()
    assert "wrong-s3cret" not in str(caught.value) + repr(caught.value)
    with RerankClient(locked) as without:
        assert without.health().healthy


def test_another_refusal_is_told_in_the_services_own_words(client: RerankClient) -> None:
    with pytest.raises(rerank.Rejected, match=r"status 400.*greater than or equal to 0"):
        client.rerank(QUERY, DOCUMENTS, max_tokens_per_doc=-1)
    with pytest.raises(rerank.TooLong, match="no room for query and document; shorten it"):
        client.rerank(QUERY, DOCUMENTS, instruction="word " * 3000)


@pytest.mark.parametrize("tail", ["", "/", "/v1", "/v1/", "/v2", "/rerank", "/v1/rerank", "/v1/rerank/", "/V1/score", "//"])
def test_the_address_is_taken_as_people_write_it(url: str, tail: str) -> None:
    with RerankClient(f" {url}{tail}\n") as written:
        assert written.base_url == url
        assert written.version() == mock.VERSION


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "empty"),
        (None, "empty"),
        ("localhost:8123", "no scheme.*http://localhost:8123"),
        ("127.0.0.1:8123/v1", "no scheme.*http://127.0.0.1:8123/v1"),
        ("ragflow-vllm-reranker", "no scheme"),
        ("ftp://host", "begins with ftp"),
        ("http://", "no address"),
        ("http://host:port", "no address"),
        ("http://host:99999", "no address"),
        ("http://ho st", "no address"),
        ("http://[::1", "no address"),
        ("http://user:s3cret@host", "user or password"),
        ("user:s3cret@host", "user or password|no scheme|begins"),
        ("http://host/v1?x=1", "a \\? or #"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_with_how_to_write_it(given: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=f"(?s)base_url.*({said})") as caught:
        RerankClient(given)
    assert "s3cret" not in str(caught.value)


def test_a_path_of_a_gateway_before_the_service_is_kept() -> None:
    assert RerankClient("https://gate.example/reranker/v1/").base_url == "https://gate.example/reranker"
    assert RerankClient("http://[::1]:8123/v1").base_url == "http://[::1]:8123"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"documents": "one text"}, "documents is one text.*list of texts"),
        ({"documents": ["a", None]}, r"documents\[1\] is a NoneType"),
        ({"documents": ["a", "\ud800"]}, r"documents\[1\] has half a character"),
        ({"query": 5}, "query is a int"),
        ({"query": "\udfff"}, "query has half a character"),
        ({"top_n": -1}, "top_n is -1"),
        ({"top_n": "5"}, "top_n is '5'"),
        ({"top_n": True}, "top_n is True"),
        ({"deadline": 0}, "deadline is 0"),
        ({"deadline": float("nan")}, "deadline is nan"),
        ({"unscored_as": "zero"}, "unscored_as is 'zero'"),
        ({"instruction": object()}, "cannot be sent as JSON"),
    ],
)
def test_what_cannot_be_sent_is_refused_before_anything_is_sent(changes: dict[str, object], said: str) -> None:
    nobody = RerankClient("http://127.0.0.1:9", retries=0)
    with pytest.raises(InvalidInput, match=said):
        nobody.rerank(**{"query": QUERY, "documents": DOCUMENTS} | changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options", [{"timeout": 0}, {"timeout": "5"}, {"retries": -1}, {"retries": 1.5}, {"api_key": "two words"}, {"api_key": "k\n"}]
)
def test_options_that_cannot_be_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(options))):
        RerankClient("http://127.0.0.1:9", **options)  # type: ignore[arg-type]


class TestHelpers:
    @pytest.fixture(autouse=True)
    def bare(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("RERANK_URL", "RERANK_API_KEY", "RERANK_API_KEY_FILE", "RERANK_MODEL"):
            monkeypatch.delenv(name, raising=False)

    def test_they_are_called_as_the_deployment_before_this_one_had_them(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RERANK_URL", f"{url}/v1")
        items, scores, raw = rerank.rerank(query=QUERY, documents=DOCUMENTS, top_n=2)
        assert [item.document for item in items] == [DOCUMENTS[1], DOCUMENTS[2]]
        assert scores == [item.score for item in items]
        assert [entry["relevance_score"] for entry in raw["results"]] == scores
        aligned, raw = rerank.score(query=QUERY, documents=DOCUMENTS)
        assert aligned == [entry["score"] for entry in raw["data"]]
        assert len(aligned) == 3
        assert rerank.default_client() is rerank.default_client()

    def test_a_key_comes_from_its_variable_or_the_first_line_of_a_file(self, locked: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("RERANK_URL", locked)
        monkeypatch.setenv("RERANK_API_KEY", KEY)
        assert rerank.score(QUERY, DOCUMENTS)[0][1] > 0.5
        file = tmp_path / "key"
        file.write_text(f"{KEY}\nanother\n")
        monkeypatch.setenv("RERANK_API_KEY_FILE", str(file))
        with pytest.raises(InvalidInput, match="both set"):
            rerank.score(QUERY, DOCUMENTS)
        monkeypatch.delenv("RERANK_API_KEY")
        assert rerank.score(QUERY, DOCUMENTS)[0][1] > 0.5
        file.write_text("\n")
        with pytest.raises(InvalidInput, match="is empty"):
            rerank.score(QUERY, DOCUMENTS)
        file.unlink()
        with pytest.raises(InvalidInput, match="cannot be read"):
            rerank.score(QUERY, DOCUMENTS)

    def test_without_an_address_they_say_which_variable_to_set(self) -> None:
        with pytest.raises(InvalidInput, match=r"RERANK_URL is not set.*export RERANK_URL=http"):
            rerank.rerank(QUERY, DOCUMENTS)


def test_every_error_is_of_one_tree_and_survives_another_process() -> None:
    errors = [
        getattr(rerank, name) for name in rerank.__all__ if isinstance(getattr(rerank, name), type) and issubclass(getattr(rerank, name), Exception)
    ]
    assert len(errors) == 11
    for kind in errors:
        assert issubclass(kind, rerank.RerankError)
        again = pickle.loads(pickle.dumps(kind("what.", remedy="do.")))
        assert (type(again), str(again), again.remedy) == (kind, "what. do.", "do.")
    assert pickle.loads(pickle.dumps(WrongModel("x", names=["a"]))).names == ("a",)
    assert pickle.loads(pickle.dumps(rerank.Overloaded("x", retry_after=3))).retry_after == 3
