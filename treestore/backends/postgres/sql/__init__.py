"""All SQL of the relational store, as SQLAlchemy expressions that are compiled once; see :mod:`.statement`."""
