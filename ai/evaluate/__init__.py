"""How well a model does on scans that it was not made from."""
