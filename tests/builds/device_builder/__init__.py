"""Tests of the builder that uses an ESPHome Device Builder."""
