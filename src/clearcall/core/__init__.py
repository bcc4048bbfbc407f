"""Errors, files, the terminal, processes and the machine: what every room stands on."""
