"""How good a model is on labelled images: metrics with intervals, slices, calibration, baselines, a report."""
