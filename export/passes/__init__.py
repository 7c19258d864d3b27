"""What is done to a converted graph before it is written."""
