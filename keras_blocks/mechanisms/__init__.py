"""Higher-order mechanisms: layers that lift any layer over a structure."""
