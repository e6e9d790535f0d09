"""A desk's `network`: always there."""

STA_IF = 0


class WLAN:
    def __init__(self, interface):
        self._name = ""

    def active(self, on):
        return on

    def connect(self, name, password):
        self._name = name
