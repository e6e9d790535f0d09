"""HTTP: translate, call the engine, translate back. Reads from the store; every write goes through the engine."""
