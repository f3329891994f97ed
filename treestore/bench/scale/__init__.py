"""How the native store does as it grows, in processes of their own, through the public API.

``documents`` says what is stored and what the answers must be, ``child`` runs a measurement in a new process. Then one module
for each :class:`~treestore.bench.tables.Topic`, whose ``measured`` gives it: ``growth`` (look-ups, commits
and openings by the store's size), ``memory``, ``pauses`` (of a task that reads while the store is at work), ``recovery`` (by
the length of the log) and ``cold`` (new processes, dropped caches). ``topics`` runs them, ``picture`` draws what they find.
"""
