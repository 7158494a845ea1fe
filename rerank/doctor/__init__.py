"""Looks at the host that runs a stack, or will, and changes nothing: what is there, what stands in the way, and what RAGFlow's default call will get.

facts -> judges (pure: daemon, network, checkout, estimate) -> rows. `look.py` asks, side by side and bounded; `probe.py` is what runs where the stack's own
steps will run: in a container, on the Docker host, or here. Rows that need nothing but a daemon are in host/rows.py, which `make` shows too.
"""
