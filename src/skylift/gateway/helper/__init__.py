"""The helper beside Envoy: a small process of its own that decides what Envoy cannot, asked over a socket
that only the gateway may open. It says yes, no, and with which headers; bodies go through Envoy. (The one
exception is `aggregate`, whose answer it puts together.)

`rules` is what it is told by the compiler; `limits`, `introspect`, `passwords` and `aggregate` are what it
can do; `serve` is the edge. A request names its rule in `x-sl-ask`; rules are named by their own digest, so
that old and new ones live side by side while Envoy takes a configuration.
"""
