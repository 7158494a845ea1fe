"""What runs inside the reranker's container: `python3 -m serving launch|mock|health|populate|key`. Standard library only, Python 3.10 or newer."""
