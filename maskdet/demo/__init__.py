"""Drawn faces for `make demo` and for tests."""
