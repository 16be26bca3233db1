"""Faces of one person in a video: from boxes in frames to tracks, from rows alone."""
