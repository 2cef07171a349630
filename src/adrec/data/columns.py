"""Column roles: a role's column is found by the given name, or by its usual names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from adrec.data.convert import NUMBER
from adrec.utils.errors import DataError, did_you_mean

USUAL_NAMES: Mapping[str, tuple[str, ...]] = {
    "user": (
        *("user_id", "user", "userid", "uid", "user_id:token", "reviewerid", "reviewer_id", "customer_id"),
        *("customerid", "customer", "visitorid", "visitor_id", "member_id", "client_id", "clientid", "account_id"),
        *(
            "buyer_id",
            "shopper_id",
            "household_id",
            "household_key",
            "profile_id",
            "session_id",
            "sessionid",
            "session",
        ),
    ),
    "item": (
        *("item_id", "item", "itemid", "iid", "item_id:token", "movie_id", "movieid", "parent_asin", "asin"),
        *("product_id", "productid", "product", "book_id", "bookid", "isbn", "track_id", "song_id", "artist_id"),
        *("article_id", "news_id", "video_id", "game_id", "business_id", "venue_id", "stockcode", "stock_code", "sku"),
    ),
    "time": (
        *("timestamp", "time", "ts", "timestamp:float", "datetime", "date", "unixreviewtime", "event_time"),
        *(
            "created_at",
            "time_stamp",
            "time_ms",
            "timestamp_ms",
            "unix_timestamp",
            "event_timestamp",
            "transaction_timestamp",
            "transaction_date",
            "invoice_date",
            "invoicedate",
            "eventdate",
            "ordered_at",
            "order_date",
            "purchased_at",
            "purchase_date",
            "bought_at",
        ),
    ),
    "rating": ("rating", "ratings", "rating:float", "score", "stars", "overall"),
    "event": (
        *("event_type", "event", "event_name", "eventtype", "type", "behavior_type", "behavior", "behaviour"),
        *("action_type", "action"),
    ),
}


def find_column(
    columns: Sequence[str], role: str, name: str | None, source: str, advice: str = "say which it is"
) -> str:
    """Return the column for ``role``: the named one, or the first with one of its usual names.

    Raises :class:`DataError` with the list of columns, the most likely one, and ``advice`` besides renaming it.
    """
    listed = ", ".join(repr(column) for column in columns)
    if name is not None:
        if name not in columns:
            raise DataError(f"{source} has no column {name!r}{did_you_mean(name, columns)}; it has {listed}.")
        return name
    found = usual_column(columns, role)
    if found is not None:
        return found
    if any(re.fullmatch(NUMBER, column) for column in columns):
        raise DataError(
            f"{source} seems to have no header: its first line is {listed}; put the names of the columns there, "
            "such as user_id, item_id, timestamp, or name them with --columns."
        )
    others = {usual_column(columns, other) for other in USUAL_NAMES}
    free = [column for column in columns if column not in others]
    near = next((hint for usual in USUAL_NAMES[role] if (hint := did_you_mean(usual, free))), "")
    raise DataError(
        f"{source} has no {role} column that is known by name{near}; it has {listed}: rename one to "
        f"{USUAL_NAMES[role][0]}, or {advice}."
    )


def usual_columns(columns: Sequence[str], role: str) -> list[str]:
    """Return the columns that have one of the usual names for ``role``, in the order of these names.

    Case is ignored, and words may be joined by spaces, hyphens or underscores.
    """
    plain = {re.sub(r"[\s-]+", "_", column.strip().lower()): column for column in reversed(columns)}
    return [plain[usual] for usual in USUAL_NAMES[role] if usual in plain]


def usual_column(columns: Sequence[str], role: str) -> str | None:
    """Return the first of :func:`usual_columns`, or None."""
    return next(iter(usual_columns(columns, role)), None)


def refuse_shared(columns: Mapping[str, str], source: str) -> None:
    """Raise :class:`DataError` if one column has two roles."""
    for role, column in columns.items():
        twin = next((other for other in columns if other != role and columns[other] == column), None)
        if twin is not None:
            raise DataError(f"{source}: column {column!r} cannot be both the {role} and the {twin}; name one of them.")
