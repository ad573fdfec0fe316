"""Checks that need adapters: whether weights are what a manifest claims."""
