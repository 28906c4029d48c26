"""What takes how long, in turns with Stable-Baselines3's own."""
