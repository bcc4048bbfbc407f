"""MLflow: runs, registry, gate, and what is shipped."""
