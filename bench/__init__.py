"""Measurements of what the engine promises about speed and memory."""
