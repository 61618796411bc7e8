"""The core in a child process of Slicer."""
