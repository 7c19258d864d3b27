"""Recursion over trees."""
