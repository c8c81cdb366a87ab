"""Tests against a real Home Assistant process, the real ESPHome and real devices."""
