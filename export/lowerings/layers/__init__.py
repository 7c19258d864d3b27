"""The native forms of layers."""
