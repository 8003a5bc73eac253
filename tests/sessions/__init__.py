"""What the application holds: sessions and connections, as SQLAlchemy's own."""
