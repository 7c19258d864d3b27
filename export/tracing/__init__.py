"""How a model behaves while it is traced."""
