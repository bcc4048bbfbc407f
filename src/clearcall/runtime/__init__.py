"""From a trained network to frames a second: export, runtime, benchmark."""
