"""The one error of this folder."""


class DataError(Exception):
    """Data that cannot be used. The message says which file, what is wrong and what to do."""
