"""Programs that make the models that ship, and that start what tests need; not part of the wheel."""
