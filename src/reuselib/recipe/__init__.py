"""Recipes: read strictly, checked by the types of the classes they name, written back with every default."""

from reuselib.recipe.recipe import Recipe

__all__ = ["Recipe"]
