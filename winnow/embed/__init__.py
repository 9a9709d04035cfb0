"""Document vectors, their clusters (the bandit's arms) and what to call them."""
