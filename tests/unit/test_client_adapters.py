"""rerank/adapters in the real libraries, against the service around the mock's engine; and those libraries' own Cohere classes, where they are installed."""

import asyncio
import gc
import subprocess
import sys
from collections.abc import Iterator

import pytest
from haystack import Document as HaystackDocument
from haystack import Pipeline
from haystack.utils import Secret
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from rerank import RerankClient, Unreachable
from rerank.adapters.haystack import RerankRanker
from rerank.adapters.langchain import RerankCompressor
from rerank.adapters.llamaindex import RerankPostprocessor
from serving.launch import mock
from tests.support import asgi
from tests.support.engine import ROOT, free_port
from tests.support.options import service_options

NAME = "qwen3-reranker-0.6b"
QUERY = "What is the capital of China?"
TEXTS = ["Apples grow on trees.", "The capital of China is Beijing.", "China is a large country in Asia."]
BEST = [TEXTS[1], TEXTS[2], TEXTS[0]]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with asgi.running(mock.build(service_options(served_model_names=(NAME,)))) as (host, port):
        yield f"http://{host}:{port}/v1"


@pytest.fixture
def client(url: str) -> Iterator[RerankClient]:
    with RerankClient(url, model=NAME) as made:
        yield made


def test_langchain_compresses_to_the_best_documents_and_leaves_the_given_ones_as_they_were(client: RerankClient) -> None:
    documents = [Document(page_content=text, metadata={"place": place}, id=str(place)) for place, text in enumerate(TEXTS)]
    compressor = RerankCompressor(client=client, top_n=2, deadline=10)
    found = compressor.compress_documents(documents, QUERY)
    assert [(document.page_content, document.id) for document in found] == [(TEXTS[1], "1"), (TEXTS[2], "2")]
    assert found[0].metadata == {"place": 1, "relevance_score": client.score(QUERY, TEXTS).scores[1]}
    assert documents[1].metadata == {"place": 1}
    assert asyncio.run(compressor.acompress_documents(documents, QUERY)) == found
    assert RerankCompressor(client=client).compress_documents([], QUERY) == []


def test_langchain_has_it_behind_a_retriever_in_a_chain(client: RerankClient) -> None:
    compressor = RerankCompressor(client=client, top_n=1)
    retriever = RunnableLambda[str, list[Document]](lambda query: [Document(page_content=text) for text in TEXTS])
    chain = RunnablePassthrough.assign(found=lambda given: compressor.compress_documents(retriever.invoke(given["query"]), given["query"]))
    assert [document.page_content for document in chain.invoke({"query": QUERY})["found"]] == [TEXTS[1]]


def test_llamaindex_postprocesses_to_the_best_nodes_with_their_scores(client: RerankClient) -> None:
    nodes = [NodeWithScore(node=TextNode(text=text, metadata={"file": "a.md"}), score=0.1) for text in TEXTS]
    processor = RerankPostprocessor(client=client, top_n=2)
    found = processor.postprocess_nodes(nodes, query_bundle=QueryBundle(QUERY))
    assert [node.node.get_content() for node in found] == BEST[:2]
    assert [node.score for node in found] == [item.score for item in client.rerank(QUERY, [f"file: a.md\n\n{text}" for text in TEXTS], 2).items]
    assert [node.score for node in nodes] == [0.1] * 3
    assert asyncio.run(processor.apostprocess_nodes(nodes, query_str=QUERY)) == found
    assert processor.postprocess_nodes([], query_str=QUERY) == []
    with pytest.raises(ValueError, match="no query"):
        processor.postprocess_nodes(nodes)
    assert "client" not in processor.to_dict()


def test_haystack_ranks_in_a_pipeline_that_is_saved_without_its_key(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RERANK_API_KEY", "s3cret-key")
    pipeline = Pipeline()
    pipeline.add_component("ranker", RerankRanker(url, model=NAME, top_k=2, deadline=10))
    documents = [HaystackDocument(content=text, meta={"place": place}) for place, text in enumerate(TEXTS)]
    saved = pipeline.dumps()
    assert "s3cret-key" not in saved
    for one in (pipeline, Pipeline.loads(saved, allowed_modules=["rerank.adapters.haystack"])):
        found = one.run({"ranker": {"query": QUERY, "documents": documents}})["ranker"]["documents"]
        assert [(document.content, document.meta) for document in found] == [(TEXTS[1], {"place": 1}), (TEXTS[2], {"place": 2})]
        assert found[0].score > found[1].score
        assert documents[1].score is None
    restored = Pipeline.loads(saved, allowed_modules=["rerank.adapters.haystack"]).get_component("ranker")
    assert isinstance(restored, RerankRanker)
    assert (restored.client.has_key, restored.top_k, restored.deadline) == (True, 2, 10)
    assert len(restored.run(QUERY, documents, top_k=1)["documents"]) == 1


def test_haystack_needs_no_key_and_saves_none_that_was_written_in_code(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RERANK_API_KEY", raising=False)
    assert not RerankRanker(url).client.has_key
    bare = RerankRanker.from_dict(RerankRanker(url, api_key=None).to_dict())
    assert [document.content for document in bare.run(QUERY, [HaystackDocument(content=text) for text in TEXTS])["documents"]] == BEST
    assert bare.run(QUERY, [])["documents"] == []
    with pytest.raises(ValueError, match="token"):
        RerankRanker(url, api_key=Secret.from_token("written")).to_dict()


def test_an_error_of_the_client_reaches_the_librarys_user_as_it_is() -> None:
    with RerankClient(f"http://127.0.0.1:{free_port()}", retries=0) as nobody:
        with pytest.raises(Unreachable):
            RerankCompressor(client=nobody).compress_documents([Document(page_content="a")], QUERY)
        with pytest.raises(Unreachable):
            RerankPostprocessor(client=nobody).postprocess_nodes([NodeWithScore(node=TextNode(text="a"))], query_str=QUERY)


def test_the_client_alone_imports_none_of_these_libraries_and_nothing_of_the_stack() -> None:
    program = (
        "import sys, rerank\n"
        "roots = {name.partition('.')[0] for name in sys.modules}\n"
        "print(sorted(roots & {'pulumi', 'components', 'serving', 'config', 'host', 'langchain_core', 'llama_index', 'haystack', 'pydantic'}))"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout.strip() == "[]"


# The libraries' own classes for Cohere's API, as docs/client.md shows them.
APART = "its package wants another cohere than the one of RAGFlow's, which the development environment has; install it in an environment of its own"


@pytest.fixture
def leaky() -> Iterator[None]:
    """Room for the connections that Cohere's SDK leaves open."""
    yield
    gc.collect()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("leaky")
def test_langchains_own_cohere_class_is_answered(url: str) -> None:
    cohere = pytest.importorskip("langchain_cohere", reason=APART)
    own = cohere.CohereRerank(cohere_api_key="any", base_url=url, model=NAME, top_n=2)
    assert [document.page_content for document in own.compress_documents([Document(page_content=text) for text in TEXTS], QUERY)] == BEST[:2]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("leaky")
def test_llamaindexs_own_cohere_class_is_answered(url: str) -> None:
    cohere = pytest.importorskip("llama_index.postprocessor.cohere_rerank", reason=APART)
    own = cohere.CohereRerank(api_key="any", base_url=url, model=NAME, top_n=2)
    found = own.postprocess_nodes([NodeWithScore(node=TextNode(text=text)) for text in TEXTS], query_str=QUERY)
    assert [node.node.get_content() for node in found] == BEST[:2]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("leaky")
def test_haystacks_own_cohere_class_is_answered(url: str) -> None:
    cohere = pytest.importorskip("haystack_integrations.components.rankers.cohere", reason=APART)
    own = cohere.CohereRanker(model=NAME, api_key=Secret.from_token("any"), api_base_url=url, top_k=2)
    assert [document.content for document in own.run(QUERY, [HaystackDocument(content=text) for text in TEXTS])["documents"]] == BEST[:2]
