"""Phantoms, simulation and measurement of accuracy."""
