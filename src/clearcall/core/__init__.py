"""Errors, files, locks, console, processes and the machine."""
