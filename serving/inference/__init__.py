"""Requests joined into batches and run; it knows no protocol."""
