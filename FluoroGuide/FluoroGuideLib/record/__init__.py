"""What was achieved: placement, dose, procedure record."""
