"""A revision of a model into a directory, whole and checked. Standard library only."""
