"""What models are for: one file, one task, over a few files that they share."""
