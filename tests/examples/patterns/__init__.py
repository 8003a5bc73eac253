"""The applications in examples/patterns, over a cluster whose replicas lag."""
