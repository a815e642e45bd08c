"""Bundles: solutions to submit, and competitions for Codabench."""
