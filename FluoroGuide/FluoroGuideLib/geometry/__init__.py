"""Frames, rigid motions and C-arm views."""
