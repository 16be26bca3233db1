"""Audits: people label a random sample of faces, which tells how far the numbers can be trusted."""
