"""What a network shows while it trains: entropy, rank and gradients, streamed from the values of its graph."""
