"""compose.replica.yaml, brought up for real."""
