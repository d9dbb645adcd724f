"""Fleets made for measurements, their simulation, and a referee for exact optima."""
