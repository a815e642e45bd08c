"""The command `autometa`."""
