"""Training: one loop for every adapter that learns, and all that touches accelerate."""
