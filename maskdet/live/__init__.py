"""Cameras and films as they play: the newest frame is scored first, and reported at once."""
