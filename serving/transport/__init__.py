"""Sockets and HTTP; it knows no model."""
