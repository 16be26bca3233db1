"""Compares models side by side, for the model card."""
