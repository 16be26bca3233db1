"""What to score: listing, image lists, references, and shards."""
