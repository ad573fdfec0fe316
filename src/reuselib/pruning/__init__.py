"""Which weights matter least: importance of units, masks, and what leaving parts out costs."""
