"""Two models on the same images: how far they agree, and where they do not.

A challenger runs beside the champion by a rule with ``shadow = true``: its results are kept and never sent.
"""
