"""Statements of the receive path: compiled once, and given to the driver as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Insert, Update

from dicom_node.db.driver import run


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A statement in the words of one database.

    Attributes
    ----------
    order : tuple of str or None
        Of the values, where they are given by position.
    fixed : dict
        Values that the statement has of its own, by name.
    processors : dict
        What makes a value of Python one of the driver's, by name.
    """

    text: str
    order: tuple[str, ...] | None
    fixed: dict[str, Any]
    processors: dict[str, Callable[[Any], Any]]

    def given(self, row: Mapping[str, Any]) -> tuple[Any, ...] | dict[str, Any]:
        """Make the driver's parameters of a row."""
        values = {**self.fixed, **row}
        for name, process in self.processors.items():
            values[name] = process(values[name])
        return values if self.order is None else tuple(values[name] for name in self.order)


class Prepared:
    """One statement that writes, and returns nothing.

    Parameters
    ----------
    make : callable
        Builds it; called once for each kind of database.
    """

    def __init__(self, make: Callable[[Connection], Insert | Update]) -> None:
        self._make = make
        self._compiled: dict[str, _Compiled] = {}

    def execute(self, tx: Connection, rows: Sequence[Mapping[str, Any]]) -> int:
        """Run it for each of some rows, which all give the same values; how many rows of the table it wrote."""
        compiled = self._compiled.get(tx.dialect.name)
        if compiled is None:
            compiled = self._compiled[tx.dialect.name] = self._compile(tx, list(rows[0]))
        return run(tx, compiled.text, [compiled.given(row) for row in rows])

    def _compile(self, tx: Connection, names: list[str]) -> _Compiled:
        statement = self._make(tx)
        if isinstance(statement, Insert):
            compiled: Any = statement.inline().compile(dialect=tx.dialect, column_keys=names)
        else:
            compiled = statement.compile(dialect=tx.dialect)
        kinds = {name: compiled.binds[name].type.dialect_impl(tx.dialect) for name in compiled.params}
        processors = {name: kind.bind_processor(tx.dialect) for name, kind in kinds.items()}
        return _Compiled(
            text=str(compiled),
            order=tuple(compiled.positiontup) if compiled.positional else None,
            fixed={name: value for name, value in compiled.params.items() if name not in names},
            processors={name: process for name, process in processors.items() if process is not None},
        )
