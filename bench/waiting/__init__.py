"""How long RAGFlow stands still while it reranks, by deadline: its serial calls and this project's own scheduler, in virtual time."""
