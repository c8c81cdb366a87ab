"""Makes the checkout's own custom_components the one that Home Assistant finds."""
