"""What a user might write instead of `maskdet score`: one file per framework, in the style of its documentation.

Each is started as ``python -m benchmarks.peers.NAME --input FOLDER --model BUNDLE --output FILE`` in an environment of
its own (``.venv-bench``), imports nothing of maskdet, and writes ``uri`` and ``probability`` to Parquet.
"""
