"""Studies: many short trainings over one question, each a row of a committed table."""
