"""What a model folder holds that could harm whoever opens it, judged without opening it."""
