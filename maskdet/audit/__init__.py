"""Audits: a random sample of faces is labelled by people, and says how far the numbers can be trusted."""
