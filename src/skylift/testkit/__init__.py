"""Simulators, shipped: images that really run, fleets, a power plug. Only tests, benches and the demo use it."""
