"""What a network is made of, and how to name parts of it."""
