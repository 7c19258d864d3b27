"""The inputs of a model: names, dims, dtypes, and the values that they may have."""
