"""What runs inside the reranker's container: `python3 -m serving launch|mock|health|populate|key`, on Python 3.10 or newer.

request -> web -> rank <- engines, and beside it health, launch and populate. What health, key and populate need is in the standard library.
"""
