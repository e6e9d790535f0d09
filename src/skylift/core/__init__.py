"""Decisions on paper: nouns, tables, the planner and its auditor.

Standard library only. No clock (time is an argument), no I/O, no async, so that the planner runs a
million times in a property test and reads without SQL or HTTP.
"""
