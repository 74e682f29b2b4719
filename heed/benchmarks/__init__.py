"""Benchmarks that others own, run through the libraries they are published with."""
