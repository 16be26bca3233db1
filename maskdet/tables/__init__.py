"""The tables of an output: layout, receipts of finished shards, run records, status."""
