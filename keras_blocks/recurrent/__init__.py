"""Loops over the steps of rows."""
