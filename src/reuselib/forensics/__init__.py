"""What two models have to do with each other, read from their weights when nobody wrote it down."""
