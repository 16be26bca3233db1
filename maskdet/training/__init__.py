"""Training: labelled folders to a model bundle, as a recipe says."""
