"""What a budget buys: runs over a grid of budgets, the curve of their scores, and what to set."""
