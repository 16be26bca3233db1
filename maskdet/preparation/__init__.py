"""From labelled folders or image lists to a training manifest: validated, without leaks, with group-disjoint splits."""
