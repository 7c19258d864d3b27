"""Tools for ONNX files: compared, made smaller, made faster."""
