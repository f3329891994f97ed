"""treestore beside other stores: the same document, the same questions, one run.

``corpus`` makes the document, ``contenders`` has a class for each store, ``cases`` says what is measured, ``truth`` what the
answers must be, ``run`` checks that they are and then takes the times in turn, ``report`` and ``plot`` show them. Nothing of
treestore imports this package but the command ``treestore bench``.
"""
