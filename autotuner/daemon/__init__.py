"""What runs by itself: the nightly crontab line."""
