"""Work: one job at a time, from the stored series to its result objects."""
