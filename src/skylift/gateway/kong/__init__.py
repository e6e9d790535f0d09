"""Kong's declarative files: format 3.0 (2.1 and 1.1 read the same way here), nested or at top level.

Several files are one configuration: services in one, plugins that name them in another. `read` is the door.
"""

from skylift.gateway.kong.read import TOP_LEVEL, read

__all__ = ["TOP_LEVEL", "read"]
