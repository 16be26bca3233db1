"""Commands that measure maskdet against a peer in the same run, and print ratios."""
