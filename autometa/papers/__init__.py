"""Reproductions of published tables: recipes of rows, the datasets of papers, training and evaluation as there."""
