"""Model folders: reading and writing what the ecosystem reads and writes."""
