"""Networks: teachers, students, published ones to measure against, and what all are built and exported with."""
