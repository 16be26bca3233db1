"""Scenes with known faces: tests of geometry."""
