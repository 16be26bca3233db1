"""Scenes with known faces, for tests of geometry."""
