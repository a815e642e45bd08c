"""Many submissions on the same tasks: runs one after the other, a ledger of them, and the ranking that follows."""
