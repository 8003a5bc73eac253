"""The decide layer: values and pure functions, tested by properties."""
