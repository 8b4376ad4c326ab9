"""What the chest bundle's configuration names: its networks, its inferer, and how nodules are read off their maps."""
