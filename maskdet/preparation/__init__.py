"""From labelled folders or manifests to a training manifest: validated, without leaks, with group-disjoint splits."""
