"""The native form of recursion over trees."""
