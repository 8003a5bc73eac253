"""Small applications as they are before docs/migrate.md: each writes a name, and counts it on the node that answers."""
