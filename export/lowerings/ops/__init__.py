"""Converters of TensorFlow ops."""
