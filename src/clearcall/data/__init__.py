"""The photographs: where they come from, their manifest, their checks, and the degraded pairs made from them."""
