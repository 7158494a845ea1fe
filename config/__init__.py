"""The stack's configuration: read once, checked, and frozen."""
