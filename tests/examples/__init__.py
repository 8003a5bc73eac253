"""The applications in examples/, over a real cluster."""
