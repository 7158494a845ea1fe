"""What a program does with the reranker. Neither Pulumi nor a model is needed for these, only the service's address in RERANK_URL."""
