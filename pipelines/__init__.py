"""Entry points: each parses a command line, builds on the library, and runs."""
