"""One small application for each pattern of docs/patterns.md."""
