"""A student of experts: trained side by side, with a router that chooses between them."""
