"""Makes a bundle of what was trained, in the layout of the MONAI Model Zoo, with a card that hides nothing."""
