"""Readers for the public scans that models are trained and judged on. Tools only: nothing here serves a patient."""
