"""What can be said of ways to cut text without a score: of schemes, of tokenizers and of the units
of a checkpoint, on one text."""

PAGE, VALUES, TABLE = "index.html", "measures.json", "measures.csv"
"""Files of a report."""
