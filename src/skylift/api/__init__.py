"""HTTP: translate, call the engine, translate back. Reads the store; every write goes through the engine."""
