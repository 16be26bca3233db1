"""Makes the face detector that ships."""
