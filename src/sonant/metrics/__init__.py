"""Measures of rankings and their intervals: arrays in, fractions out; no torch."""
