"""What the open Routers of this process know, and every request may ask."""

from lagwise.policy import Policy

systems: set[int] = set()
"""System identifiers of their clusters. A token may have positions of other clusters: of another service's database, or
of this one before it was moved."""
windows: list[float] = []
"""Their sticky windows: one token, and one cookie, serves them all."""
WINDOW = Policy().sticky_window
"""That of a process without one, such as a gateway, whose services have Routers with windows of their own."""
processes: dict[object, int] = {}
"""For each primary, how many processes watch it, this one too: so many may answer one client."""
UNCOUNTED = 8
"""So many are assumed where they are not, or cannot be, counted."""
