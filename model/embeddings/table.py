"""one learned row per id."""

from octavo.model.embeddings import LearnedTable


class Table(LearnedTable):
    """As it is."""
