"""From a call to what is scored of it by its deadline. Knows no HTTP and no model: engines come in by rank/engine.py."""
