"""Video files: what they hold, which of their frames are used, and those frames as upright RGB."""
