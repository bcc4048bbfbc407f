"""The runtime: an exported network on frames."""
