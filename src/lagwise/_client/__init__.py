"""What one client has seen, and how it travels."""
