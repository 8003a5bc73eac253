"""What is known of the servers, and where to go."""
