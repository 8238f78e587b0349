"""A captured model and what is known of it: groups, sites, channels, memory, and the ledger of what was applied."""
