"""What an image is, and patches between two images: bytes in, facts or bytes out.

No network, no clock, no database. `image` reads facts off bytes; `delta` makes and applies patches.
"""
