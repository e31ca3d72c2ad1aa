"""Studies: which way of cutting text is best, by how much, and whether to believe it."""
