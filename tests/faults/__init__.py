"""Faults made on purpose to a real Home Assistant process, and what is left of each.

Every test ends with `aftermath.check`.
"""
