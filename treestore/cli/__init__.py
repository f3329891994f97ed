"""The command line: one file per group of verbs, each a thin layer over :class:`treestore.TreeStore`.

Results go to stdout, everything else to stderr. Exit status 0: done; 1: the store said no (no store there, not found,
check failed, locked); 2: usage or bad input, among it a place that holds something else than a store.
"""
