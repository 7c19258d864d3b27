"""Converters of arithmetic."""
