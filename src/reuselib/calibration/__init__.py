"""What a network does with a few rows: statistics of its layers' inputs, one block at a time."""
