"""Heed: instruction-tune causal language models, and show whether they learned to follow instructions."""

__version__ = "0.1.0"
