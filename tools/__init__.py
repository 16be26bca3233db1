"""What makes the models that ship, and starts what tests need; outside the wheel."""
