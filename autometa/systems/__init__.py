"""Whole systems that a bundle can be: autometa itself and its rivals, one file each."""
