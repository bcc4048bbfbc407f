"""From the JSON that the stages leave to tables, pictures and words that a person can read."""
