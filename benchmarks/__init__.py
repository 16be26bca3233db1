"""Commands that measure maskdet and a peer in the same run, and print ratios."""
