"""Valid random inputs of a contract."""
