"""Octavo: pretrain byte-level language models in JAX and compare them in bits per byte."""
