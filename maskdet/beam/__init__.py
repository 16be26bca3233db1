"""Everything that knows Apache Beam, beside storage."""
