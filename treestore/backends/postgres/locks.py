"""Which lock a statement of a change of the schema takes, in words for whoever is to run it beside a service.

PostgreSQL's documentation, chapter 13.3, says which locks wait for which.
"""

from __future__ import annotations

import re

_ONLINE = "reads and writes go on"

_LOCKS = (
    (r"BEGIN|COMMIT|SET .*", "no lock"),
    (r"LOCK TABLE (\w+) IN (.+) MODE", rf"\2 on \1, until COMMIT: {_ONLINE}; what vacuums or changes it is waited for"),
    (r"ALTER TABLE (\w+) (ADD|DROP) COLUMN .*", r"ACCESS EXCLUSIVE on \1, catalog only, until COMMIT"),
    (r"ALTER TABLE (\w+) ALTER COLUMN \w+ TYPE .*", r"ACCESS EXCLUSIVE on \1, while its rows and indexes are written anew"),
    (r"ALTER SEQUENCE (\S+) .*", r"SHARE ROW EXCLUSIVE on \1, catalog only, until COMMIT"),
    (r"CREATE (?:UNIQUE )?INDEX CONCURRENTLY \w+ ON (\w+) .*", rf"SHARE UPDATE EXCLUSIVE on \1 while it is read: {_ONLINE}"),
    (r"CREATE (?:UNIQUE )?INDEX \w+ ON (\w+) .*", r"SHARE on \1 while it is read, until COMMIT"),
    (r"DROP INDEX \w+", "ACCESS EXCLUSIVE on the index and its table, catalog only, until COMMIT"),
    (r"CREATE TABLE .*", "a new table, which nobody waits for"),
    (r"DROP TABLE (\w+)", r"ACCESS EXCLUSIVE on \1, until COMMIT"),
    (r"(?:INSERT INTO|UPDATE|DELETE FROM) (\w+) .*", r"ROW EXCLUSIVE on \1, until COMMIT"),
)


def lock_of(statement: str) -> str:
    """The lock that a statement takes and for how long, in words. Raises ValueError for one that is not known here."""
    text = " ".join(statement.rstrip(";\n ").split())
    for pattern, words in _LOCKS:
        if match := re.fullmatch(pattern, text):
            return match.expand(words)
    raise ValueError(f"the lock of this statement is not known: {text}")


def commented(statement: str) -> str:
    """The statement as a script has it, below a comment that names its lock."""
    return f"-- {lock_of(statement)}\n{statement.rstrip(';')};\n"
