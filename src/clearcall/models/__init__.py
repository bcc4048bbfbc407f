"""Networks: teachers, students, published ones; how they are built and exported."""
