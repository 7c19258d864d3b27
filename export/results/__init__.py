"""What a verification or a comparison found, as plain data."""
