"""How a model fares on clips as a call delivers them: encoded and decoded by real codecs, frame by frame."""
