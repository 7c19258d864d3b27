"""From a Keras model to an ONNX file, with proof that both compute the same."""
