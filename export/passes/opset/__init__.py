"""The opset of a file: as new as gives the best graph, as old as that graph allows."""
