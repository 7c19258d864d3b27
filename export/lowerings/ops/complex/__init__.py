"""Complex numbers as pairs of reals, and their Fourier transforms."""
