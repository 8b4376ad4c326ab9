"""The only place that speaks SQL. Plain functions that take an open transaction."""
