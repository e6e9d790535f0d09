"""The dashboard: an operator's day in a browser.

Pages are rendered here, on the server, and work without JavaScript; one small module of ours keeps the live
page live. Every change goes through the engine, like the API's.
"""
