"""Things to put beside the reranker, a few lines each; examples/README.md says where the lines go."""
