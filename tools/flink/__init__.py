"""Runs a Flink cluster on this machine."""
