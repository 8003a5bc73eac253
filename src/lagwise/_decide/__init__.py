"""Values and pure functions: no clock, no event loop, no database; time is a parameter."""
