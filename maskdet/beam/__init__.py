"""Everything that depends on Apache Beam, apart from storage."""
