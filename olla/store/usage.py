"""Store usage: one row per request, and sums over rows."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import ColumnElement, Table, delete, func, select

from olla.record import RequestRecord
from olla.store.connections import Connections
from olla.store.schema import usage, usage_content

__all__ = ["UsageRow", "UsageSum", "UsageTable", "row_of"]

_TEXT_CHARACTERS_MAX = 256
"""Characters that are stored of a text which a client or an endpoint chooses."""
_TOKENS_MAX = 2**31 - 1
_FORGOTTEN_AT_ONCE = 2000


class UsageRow(msgspec.Struct, frozen=True):
    """One request.

    `at` is the end of its response (Unix seconds). Limits and usage count under `caller` (`key:1`,
    `static:ci`, `addr:10.0.0.1`). `status` is the HTTP status, `failure` a value of
    `olla.failures.Kind` or None. Texts are empty if there is no model, endpoint or key. Token
    counts and durations (seconds: in the queue, to the first byte, total) are None if unknown.
    `estimated`: olla estimated the token counts. `content` is prompt and response, if they are
    recorded; it is written, but not read back with the row.
    """

    at: float
    request_id: str
    caller: str
    owner: str
    key_name: str
    tier: str
    operation: str
    dialect: str
    model: str
    endpoint: str
    status: int
    failure: str | None
    streaming: bool
    prompt_tokens: int | None
    output_tokens: int | None
    estimated: bool
    queue_seconds: float | None
    first_token_seconds: float | None
    total_seconds: float | None
    content: tuple[str, str] | None = None


class UsageSum(msgspec.Struct, frozen=True):
    """The sum over the requests of one caller, owner, model or endpoint (`of`)."""

    of: str
    requests: int
    failures: int
    prompt_tokens: int
    output_tokens: int


_COLUMNS = tuple(usage.c[name] for name in UsageRow.__struct_fields__[:-1])
_CONTENT_COLUMNS = ("at", "request_id", "request", "answer")
_GROUPS = {name: usage.c[name] for name in ("caller", "owner", "model", "endpoint")}


def row_of(record: RequestRecord) -> UsageRow:
    """Return the row of a finished request. Every database accepts it, whatever the record
    contains."""
    started, first_byte = record.started, record.first_byte
    total = record.ended - started
    failure, content = record.failure, record.content
    return UsageRow(
        record.started_wall + total,
        _text(record.id),
        _text(record.caller),
        _text(record.owner),
        _text(record.key_name),
        record.tier,
        record.operation,
        record.dialect,
        _text(record.model or ""),
        record.endpoint or "",
        record.status,
        None if failure is None else failure.kind.value,
        record.streaming,
        _tokens(record.prompt_tokens),
        _tokens(record.output_tokens),
        record.estimated,
        record.queue_seconds,
        None if first_byte is None else first_byte - started,
        total,
        None if content is None else (_storable(content[0]), _storable(content[1])),
    )


class UsageTable:
    """The rows. Every method raises `StoreError` if the database fails."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        # Rows are passed to the driver directly: SQLAlchemy's own way costs more than the write.
        dialect = connections.dialect
        names = [column.name for column in _COLUMNS]
        self._add = str(usage.insert().inline().compile(dialect=dialect, column_keys=names))
        self._add_content = str(
            usage_content.insert()
            .inline()
            .compile(dialect=dialect, column_keys=list(_CONTENT_COLUMNS))
        )

    async def add(self, rows: Sequence[UsageRow]) -> None:
        """Write all rows, or none if it raises."""
        if not rows:
            return
        values = [msgspec.structs.astuple(row)[:-1] for row in rows]
        contents = [
            (row.at, row.request_id, *row.content) for row in rows if row.content is not None
        ]
        async with self._connections.writing() as connection:
            await connection.exec_driver_sql(self._add, values)
            if contents:
                await connection.exec_driver_sql(self._add_content, contents)

    async def recent(
        self, limit: int, *, owner: str | None = None, before: float | None = None
    ) -> list[UsageRow]:
        """Return the newest rows first: of an owner, or that ended before a time, if given."""
        query = select(*_COLUMNS).order_by(usage.c.at.desc(), usage.c.id.desc()).limit(limit)
        if owner is not None:
            query = query.where(usage.c.owner == owner)
        if before is not None:
            query = query.where(usage.c.at < before)
        async with self._connections.reading() as connection:
            return [UsageRow(*row) for row in await connection.execute(query)]

    async def content(self, request_id: str) -> tuple[str, str] | None:
        """Return prompt and response of the newest request with this id, if they were recorded."""
        query = (
            select(usage_content.c.request, usage_content.c.answer)
            .where(usage_content.c.request_id == request_id)
            .order_by(usage_content.c.id.desc())
            .limit(1)
        )
        async with self._connections.reading() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else (row.request, row.answer)

    async def tokens_since(self, since: float) -> dict[str, int]:
        """Return the tokens of requests that ended at `since` or later, by caller."""
        tokens = _sum("prompt_tokens") + _sum("output_tokens")
        query = select(usage.c.caller, tokens).where(usage.c.at >= since).group_by(usage.c.caller)
        async with self._connections.reading() as connection:
            return {caller: int(total) for caller, total in await connection.execute(query)}

    async def summary(self, since: float, until: float, *, by: str) -> list[UsageSum]:
        """Sum the requests that ended from `since` to before `until`, most tokens first.

        `by` is the column to group by: caller, owner, model or endpoint.

        Raises:
            ValueError: `by` is another column.
        """
        if by not in _GROUPS:
            raise ValueError(f"by must be one of {', '.join(_GROUPS)}")
        group, prompt, output = _GROUPS[by], _sum("prompt_tokens"), _sum("output_tokens")
        query = (
            select(group, func.count(), func.count(usage.c.failure), prompt, output)
            .where(usage.c.at >= since, usage.c.at < until)
            .group_by(group)
            .order_by((prompt + output).desc(), group)
        )
        async with self._connections.reading() as connection:
            return [
                UsageSum(of, *(int(number) for number in numbers))
                for of, *numbers in await connection.execute(query)
            ]

    async def total(self) -> int:
        """Return the number of stored requests."""
        async with self._connections.reading() as connection:
            query = select(func.count()).select_from(usage)
            count: int = (await connection.execute(query)).scalar_one()
        return count

    async def forget(self, before: float) -> int:
        """Delete requests that ended before a time (Unix seconds), and return their number.

        Rows are deleted in batches, so that writers wait only briefly.
        """
        await self._forget(usage_content, before)
        return await self._forget(usage, before)

    async def _forget(self, table: Table, before: float) -> int:
        old = select(table.c.id).where(table.c.at < before).limit(_FORGOTTEN_AT_ONCE)
        forgotten = 0
        while True:
            async with self._connections.writing() as connection:
                done = await connection.execute(delete(table).where(table.c.id.in_(old)))
            forgotten += done.rowcount
            if done.rowcount < _FORGOTTEN_AT_ONCE:
                return forgotten


def _sum(name: str) -> ColumnElement[int]:
    return func.coalesce(func.sum(usage.c[name]), 0)


def _text(text: str) -> str:
    # Printable text contains neither NUL, which PostgreSQL rejects, nor half surrogate pairs, which
    # every database rejects.
    text = text[:_TEXT_CHARACTERS_MAX]
    return text if text.isprintable() else _storable(text)


def _storable(text: str) -> str:
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def _tokens(count: int | None) -> int | None:
    return None if count is None else min(max(count, 0), _TOKENS_MAX)
