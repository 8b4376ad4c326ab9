"""How fast a node takes what it is sent, beside others that do the same; what docs/intake.md tells."""
