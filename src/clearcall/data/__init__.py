"""Photographs and pairs: sources, manifest, checks, degradations."""
