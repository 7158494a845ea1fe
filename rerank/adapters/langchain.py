"""LangChain: a document compressor. Needs langchain-core."""

from collections.abc import Sequence

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict

from rerank.client import RerankClient


class RerankCompressor(BaseDocumentCompressor):
    """The `top_n` best documents (None: all), best first, each a copy with its score in metadata["relevance_score"].

    `deadline` is in seconds, None the service's own. Raises RerankError.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    client: RerankClient
    top_n: int | None = None
    deadline: float | None = None

    def compress_documents(self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None) -> Sequence[Document]:
        found = self.client.rerank(query, [document.page_content for document in documents], self.top_n, deadline=self.deadline)
        return [
            documents[item.index].model_copy(update={"metadata": {**documents[item.index].metadata, "relevance_score": item.score}})
            for item in found.items
        ]
