"""Jobs that see what their sender has written: docs/jobs.md."""
