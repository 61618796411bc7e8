"""2D/3D registration and its error."""
