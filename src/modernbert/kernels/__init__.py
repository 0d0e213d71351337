"""Attention and its neighbours: one entry, several backends."""
