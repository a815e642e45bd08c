"""What goes wrong with bundles."""

from __future__ import annotations

from autometa.core.errors import AutometaError


class BundleError(AutometaError):
    """A bundle or a competition cannot be made; the message names the file and the fix."""
