"""Lists of tensors (`tf.TensorArray`)."""
