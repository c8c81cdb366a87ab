"""Makes this checkout's custom components importable for tests."""
