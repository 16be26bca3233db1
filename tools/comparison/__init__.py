"""Models side by side, for the model card."""
