"""The builder that runs ESPHome as processes of this host."""
