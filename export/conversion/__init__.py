"""From a Keras model to an ONNX graph: what is traced, and what tf2onnx is given and told."""
