"""Bodies that never lived: images whose truth is known because we drew it."""
