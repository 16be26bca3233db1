"""A local page for exploring an output's tables: filter, drill down to faces and images, correct labels, export."""
