"""What computes scores: vLLM with the model card's prompt, and the mock."""
