"""The native form, YAML or TOML: everything the gateway can do, also what Kong and Traefik have no words for.
`read` is the door."""

from skylift.gateway.native.read import TOP_LEVEL, read

__all__ = ["TOP_LEVEL", "read"]
