"""What the trading process uses: looking settings up, and pipelines that are compiled and warm."""
