"""X-ray images in and out."""
