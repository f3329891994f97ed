"""``python -m treestore`` is the ``treestore`` command."""

from treestore.cli.app import main

if __name__ == "__main__":
    main()
