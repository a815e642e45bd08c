"""Whole systems of one design, to measure the search against: one file each."""
