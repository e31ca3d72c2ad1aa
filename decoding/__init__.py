"""Drawing text: the sampling loop, and drafters whose guesses it verifies."""
