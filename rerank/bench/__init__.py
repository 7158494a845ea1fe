"""The benchmark of rerank services: what calls are made of, how they are sent, what is counted. No command line in it."""
