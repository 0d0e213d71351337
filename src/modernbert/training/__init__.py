"""Training: one loop for everything, what it is given, and what it leaves on the disk."""
