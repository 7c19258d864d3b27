"""What an int8 file is made of: its products, what stays in float, onnxruntime's tools."""
