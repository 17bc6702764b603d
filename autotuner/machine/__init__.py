"""What the machine knows of itself: which processes run on it, and its NVIDIA cards."""
