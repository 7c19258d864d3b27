"""The passes over the levels of a batch of trees."""
