"""Simulators, shipped: images that really run, fleets, a power plug. For tests, benches and the demo only."""
