"""A local page to ask the tables of an output: filter, drill down to faces and images, correct labels, export."""
