"""The hashes of nodes, trees and versions: SHA-256 over deterministic MessagePack, 32 raw bytes each.

There are two, both Merkle hashes (a node's covers its subtree):

- ``node_hash``, identity: what is said, that is title, summaries, text and the identities of the children in order. Ids,
  numbers and pages are left out, so that a section or page inserted elsewhere changes nothing here.
- ``tree_hash``, fidelity: every given field of the node, and the fidelity of the children in order. Equal tree hashes mean
  equal subtrees. What a store derives (ordinals, depth) is left out, as it follows from the rest; so is ``updated_at``.

They are made of decoded values and never of stored bytes, so they are the same on every store. Maps are hashed with sorted
keys: the order of the keys in ``metadata`` and ``extra`` makes no difference.

    text_hash          = sha256(UTF-8 of the text), None where there is no text
    node_hash          = sha256(enc((title, summary, prefix_summary, text_hash)) + children's node_hash...)
    tree_hash          = sha256(enc((node_id, parent_id, title, page_start, page_end, page_index, line_num, summary,
                                     prefix_summary, section_path, validation_status, metadata, extra, text_hash))
                                + children's tree_hash...)
    version: node_hash = sha256("N" + roots' node_hash...)
             tree_hash = sha256("T" + roots' tree_hash... + "P" + pages_hash)
             pages_hash = sha256(sha256(enc((page, content, extra))) of each page text...)

A version keeps its ``pages_hash``, so that amending a node does not read the page texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

import msgspec

from treestore.records import Node, Outline, PageText
from treestore.trees.given import Given

_encode = msgspec.msgpack.Encoder(order="deterministic").encode


def text_hash(text: str | None) -> bytes | None:
    """The hash of a text, ``None`` for no text (an empty text has a hash)."""
    return None if text is None else sha256(text.encode()).digest()


def content_hashes(
    node: Given | Outline, section_path: str, text_hash: bytes | None, identities: bytes, fidelities: bytes
) -> tuple[bytes, bytes]:
    """``(node_hash, tree_hash)`` of a node with this section path, the text of this hash, and children of these hashes, in
    order and joined."""
    title, summary, prefix_summary = node.title, node.summary, node.prefix_summary
    fields = (
        node.node_id,
        node.parent_id,
        title,
        node.page_start,
        node.page_end,
        node.page_index,
        node.line_num,
        summary,
        prefix_summary,
        section_path,
        node.validation_status,
        node.metadata,
        node.extra,
        text_hash,
    )
    identity = sha256(_encode((title, summary, prefix_summary, text_hash)) + identities).digest()
    return identity, sha256(_encode(fields) + fidelities).digest()


def hashes_of(node: Outline, children: Iterable[Outline]) -> tuple[bytes, bytes]:
    """``(node_hash, tree_hash)`` of a node with these children, in order. Its ``text_hash`` and the children's hashes are
    taken as they stand: this is how a stored tree is proved, and how a changed one is hashed anew."""
    below = list(children)
    identities = b"".join([child.node_hash for child in below])
    fidelities = b"".join([child.tree_hash for child in below])
    return content_hashes(node, node.section_path, node.text_hash, identities, fidelities)


def rehash_path(path: Sequence[Node], children: Sequence[Sequence[Outline]]) -> list[Node]:
    """The nodes of ``path`` with new hashes, after an amendment of the last one.

    ``path`` leads from the root to the amended node (as it is to be stored, its hashes still the old ones), as
    :class:`~treestore.operations.Ancestors` answers it. ``children[i]`` are the children of ``path[i]`` in document order as
    they stand in the store; among them the next node of the path is replaced by its new form. No other node's hashes change.
    """
    if len(path) != len(children):
        raise ValueError(f"{len(path)} nodes on the path, but the children of {len(children)}")
    rehashed: list[Node] = []
    below: Node | None = None
    for node, its_children in zip(reversed(path), reversed(children), strict=True):
        if below is None:
            node = msgspec.structs.replace(node, text_hash=text_hash(node.text))
            current: list[Outline] = list(its_children)
        else:
            current = [below if child.ordinal == below.ordinal else child for child in its_children]
        identity, fidelity = hashes_of(node, current)
        below = msgspec.structs.replace(node, node_hash=identity, tree_hash=fidelity)
        rehashed.append(below)
    rehashed.reverse()
    return rehashed


def page_hash(page: PageText) -> bytes:
    """The hash of one page text with its number and extra keys."""
    return sha256(_encode((page.page, page.content, page.extra))).digest()


def pages_hash(pages: Sequence[PageText]) -> bytes:
    """The hash of all page texts of a version, in the order given."""
    return sha256(b"".join([page_hash(page) for page in pages])).digest()


NO_PAGES = pages_hash(())


def version_hashes(roots: Iterable[Outline], pages_hash: bytes = NO_PAGES) -> tuple[bytes, bytes]:
    """``(node_hash, tree_hash)`` of a version with these roots, in document order, and page texts of this hash."""
    identity, fidelity = sha256(b"N"), sha256(b"T")
    for root in roots:
        identity.update(root.node_hash)
        fidelity.update(root.tree_hash)
    fidelity.update(b"P" + pages_hash)
    return identity.digest(), fidelity.digest()
