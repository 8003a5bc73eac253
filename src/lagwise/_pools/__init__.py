"""One node's connections."""
