"""Plain values, as YAML and JSON say them, and the dataclasses they stand for."""
