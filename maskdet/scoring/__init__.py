"""From a shard to rows, and the set-up of a run; independent of Beam."""
