"""Keys, roles, the ceremony, repositories, and what a device verifies before it installs a byte.

An Uptane profile on plain TUF files; python-tuf is the library, nothing of TUF is written by hand. The
promise: whoever owns the server and every online key can withhold updates or order something that was
already released; new code needs two of three offline keys.
"""

import sys

if sys.implementation.name == "cpython":  # compact, p256 and plain run on MicroPython too
    from skylift.trust import lazily as lazily  # before anything imports securesystemslib
