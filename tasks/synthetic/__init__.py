"""Invented data, the same for the same seed and date."""
