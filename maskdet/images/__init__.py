"""From bytes to upright RGB: the one preprocessing function, and the decoders."""
