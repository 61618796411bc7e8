"""MRML: the only package that imports slicer."""
