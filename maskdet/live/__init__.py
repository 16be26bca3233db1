"""Cameras and films as they run: newest frame first, and what is seen in it at once."""
