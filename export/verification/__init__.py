"""A file under onnxruntime against its model in Keras."""
