"""Tests of ESPHome Builds."""
