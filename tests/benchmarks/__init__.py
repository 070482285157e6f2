"""Measurements, side by side in one run: ratios can be trusted, single times cannot."""
