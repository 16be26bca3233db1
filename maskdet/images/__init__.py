"""Bytes to upright RGB: the one preprocessing function, and who decodes."""
