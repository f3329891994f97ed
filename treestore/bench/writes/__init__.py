"""Writers side by side: how fast, how late, how many bytes, and what is left of it beside readers.

``given`` makes what is written, ``writers`` write it (treestore, SQLite, the disk alone), ``held`` looks afterwards whether
all of it is there. ``groups``, ``stages``, ``amounts`` and ``beside`` measure one :class:`~treestore.bench.tables.Topic`
each, ``run`` does all of it, ``pictures`` draws it.

Everywhere: a call returns when what it wrote is durable (SQLite: WAL, ``synchronous=FULL``), and what was written is looked
for in the store after it was closed and opened again, of several rounds after the first.
"""
