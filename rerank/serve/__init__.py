"""The reranker on this machine without Docker: the same launcher and service as in the container, started, watched and stopped by pid file."""
