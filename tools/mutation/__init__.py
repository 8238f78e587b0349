"""Mutation testing of the sources: small mistakes in passes, rules, rewriting and checks that tests must notice."""
