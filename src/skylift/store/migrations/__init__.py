"""The one migration tree, for both dialects. Expand, deploy, contract."""
