"""Pictures for people: images with their faces marked, and contact sheets of an output."""
