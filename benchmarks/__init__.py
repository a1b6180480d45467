"""Benchmarks: each prints what it measured, beside its peers where there are some. Nothing here asserts a speed."""
