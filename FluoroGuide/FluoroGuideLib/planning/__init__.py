"""Targets, trajectories and procedures."""
