"""The ``maskdet`` command: one file a subcommand."""
