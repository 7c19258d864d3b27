"""What is computed over ragged rows: groups of like length, reductions."""
