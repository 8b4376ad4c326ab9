"""What becomes of each of many real and odd inputs; what docs/inputs.md tells."""
