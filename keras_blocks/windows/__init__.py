"""Windows that slide over an input."""
