"""Whether the service is well: proven at its start, watched while it runs, asked by Docker."""
