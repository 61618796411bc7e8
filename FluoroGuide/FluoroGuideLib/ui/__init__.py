"""Qt: the only package that imports qt and ctk."""
