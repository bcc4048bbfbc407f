"""Degradations of photographs, and real encoders among them."""
