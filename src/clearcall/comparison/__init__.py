"""Our models beside published networks and classic filters, on one machine in one run."""
