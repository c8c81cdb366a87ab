"""What this project costs, side by side with ESPHome Device Builder."""
