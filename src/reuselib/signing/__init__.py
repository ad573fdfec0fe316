"""Who vouches for a model folder: OpenSSF signatures, and the strictness in front of them."""
