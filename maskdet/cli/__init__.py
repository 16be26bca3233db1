"""The ``maskdet`` command, with one file for each subcommand."""
