"""Units: layers that take a vector (or a sequence of vectors) and produce another."""
