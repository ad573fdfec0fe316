"""From a plan to children in the store: what `derive` does."""
