"""Faces: the detector and its bundle, crops for the classifier, scenes to test on and the metrics of detection."""
