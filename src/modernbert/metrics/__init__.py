"""Pure functions that score predictions."""
