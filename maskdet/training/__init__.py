"""Training: from labelled folders to a model bundle, as a recipe says."""
