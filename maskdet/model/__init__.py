"""Models: bundles on disk, the backends that run them, and the architectures that training fits."""
