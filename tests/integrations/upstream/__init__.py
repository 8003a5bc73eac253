"""SQLAlchemy's own tests of its sessions, run with lagwise's classes."""
