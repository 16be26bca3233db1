"""Faces of a video that are one person's: from boxes in frames to tracks, from rows alone."""
