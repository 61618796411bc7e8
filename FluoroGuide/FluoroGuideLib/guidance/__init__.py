"""Overlay geometry, needle reconstruction and deviation from plan."""
