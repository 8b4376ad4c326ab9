"""Training of the models that ship in `ai/bundles`, each with one documented command."""
