"""Builders of what several test files need: videos, networks and a run of the command."""
