"""A folder of models, loaded and watched."""
