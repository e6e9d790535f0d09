"""Everything the server does, one module per deed.

The plain device API, the CLI, the dashboard and other systems' dialects all call these functions, so that
"report a result" means one thing.
"""
