"""How layers become native ONNX nodes: one file per op family."""
