"""Text as tokens on disk, and rows of tokens in an order that can be gone on with."""
