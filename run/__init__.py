"""A run on disk and in Python: what training, evaluation, sampling and preparation need of it."""
