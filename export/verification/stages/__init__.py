"""The stages of a verification."""
