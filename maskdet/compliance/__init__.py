"""Rates by group: mergeable counts and intervals."""
