"""Scores of a checkpoint, one file each."""
