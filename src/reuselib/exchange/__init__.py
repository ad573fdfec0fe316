"""The record in the forms of others: bills of materials, model cards, signed statements."""
