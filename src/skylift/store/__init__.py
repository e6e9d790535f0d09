"""SQL: tables, questions, the world, apply, the outbox, migrations. Two dialects, one tree.

The only place that knows SQL, and the one place where a query may be slow. Functions are named after
questions and take a connection; nothing here decides.
"""
