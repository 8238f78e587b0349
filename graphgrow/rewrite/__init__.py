"""Passes, mutations and the ledger."""
