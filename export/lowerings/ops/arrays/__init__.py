"""Converters that count, place, sort and draw."""
