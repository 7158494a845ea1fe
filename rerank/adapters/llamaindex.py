"""LlamaIndex: a node postprocessor. Needs llama-index-core."""

from llama_index.core.bridge.pydantic import Field
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle

from rerank.client import RerankClient


class RerankPostprocessor(BaseNodePostprocessor):
    """The `top_n` best nodes (None: all), best first, with the reranker's scores; read with the metadata that is meant for embeddings.

    `deadline` is in seconds, None the service's own. Raises RerankError, and ValueError where there is no query.
    """

    client: RerankClient = Field(exclude=True)  # its key is not to be stored
    top_n: int | None = None
    deadline: float | None = None

    @classmethod
    def class_name(cls) -> str:
        return "RerankPostprocessor"

    def _postprocess_nodes(self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None) -> list[NodeWithScore]:
        if query_bundle is None:
            raise ValueError("There is no query to rerank for; pass query_str or query_bundle.")
        texts = [node.node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]
        found = self.client.rerank(query_bundle.query_str, texts, self.top_n, deadline=self.deadline)
        return [NodeWithScore(node=nodes[item.index].node, score=item.score) for item in found.items]
