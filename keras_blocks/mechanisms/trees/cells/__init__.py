"""The cells that a recursion applies at each node."""
