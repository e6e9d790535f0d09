"""Envoy, driven: a snapshot of its configuration, published by rename, confirmed by its own numbers.

`snapshot` is what Envoy is to have; `process` is one running Envoy; `publish` brings a snapshot to it and
takes it back if it is refused; `supervisor` keeps one Envoy running through all of that.
"""
