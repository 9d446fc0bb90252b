"""Measurements of memory, speed and exactness; each prints a table and ends with one JSON line."""
