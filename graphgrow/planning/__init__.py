"""Planning: what the new units of every tensor hold, so that growth is exact."""
