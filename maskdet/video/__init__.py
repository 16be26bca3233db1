"""Video files: what they hold, which of their frames are looked at, and those frames as upright RGB."""
