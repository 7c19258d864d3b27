"""Where a file first differs from its model."""
