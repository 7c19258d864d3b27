"""What was found, for people and for machines: tables, pages, JSON."""
