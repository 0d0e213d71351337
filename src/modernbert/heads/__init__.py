"""What stands on the encoder: one small module for each task."""
