"""Units: where they end, how they are pooled, and how they reach the positions after them."""
