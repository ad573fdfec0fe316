"""Figures about models, and claims about two sets of tensors."""
