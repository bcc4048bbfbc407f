"""Measurements: quality on pairs and on calls, and speed, beside published networks and classical filters."""
