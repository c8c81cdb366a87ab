"""Tests against the real server of ESPHome Device Builder."""
