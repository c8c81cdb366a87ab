"""Builds on an ESPHome Device Builder server, which runs ESPHome for us."""
