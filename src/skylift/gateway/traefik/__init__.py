"""Traefik's dynamic configuration: the file provider, and the Kubernetes resources IngressRoute, Middleware,
TraefikService and ServersTransport, under their old and their new API version. `read` is the door."""

from skylift.gateway.traefik.read import TOP_LEVEL, read

__all__ = ["TOP_LEVEL", "read"]
