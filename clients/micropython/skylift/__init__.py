"""Skylift's update client for MicroPython on the ESP32: `Client`, `Config`, `Hooks`."""

from skylift.client import Client
from skylift.config import Config, Hooks

__all__ = ["Client", "Config", "Hooks"]
