"""One shard to rows, and the set-up of a run; knows nothing of Beam."""
