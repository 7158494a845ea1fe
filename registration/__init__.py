"""The reranker entered into RAGFlow, looked up there and taken out again, over RAGFlow's own HTTP API. Imports neither Pulumi nor components/."""
