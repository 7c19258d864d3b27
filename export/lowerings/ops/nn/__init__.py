"""Converters of convolutions, poolings and images."""
