"""Write the synthetic orders of the tutorial: orders.csv, later rows in orders-today.csv, and all in orders-new.csv."""

from __future__ import annotations

import csv
import datetime
import random
from pathlib import Path

Row = tuple[str, str, str, int]


def orders(rng: random.Random, users: int = 300, items: int = 80) -> list[Row]:
    """Return rows of customer, item, time and stars; items come in groups of ten, and each customer has one."""
    rows = []
    for user in range(users):
        group = rng.randrange(8)
        count = rng.randint(4, 18)
        start = datetime.datetime(2024, 1, 1)
        time = start + datetime.timedelta(days=rng.randrange(200), seconds=rng.randrange(86400))
        item = group * 10 + rng.randrange(10)
        for _ in range(count):
            rows.append((f"u{user:03d}", f"sku-{item:03d}", time.isoformat(sep=" "), rng.choice([2, 3, 4, 4, 5, 5])))
            time += datetime.timedelta(hours=rng.randrange(2, 300))
            chance = rng.random()
            if chance < 0.6:
                item = item // 10 * 10 + (item + 1) % 10
            elif chance < 0.9:
                item = item // 10 * 10 + rng.randrange(10)
            else:
                item = rng.randrange(items)
    return sorted(rows, key=lambda row: row[2])


def write(path: str, rows: list[Row]) -> None:
    """Write a CSV file with a header."""
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["customer_id", "sku", "ordered_at", "stars"])
        table.writerows(rows)


if __name__ == "__main__":
    found = orders(random.Random(7))
    border = int(0.95 * len(found))
    write("orders.csv", found[:border])
    write("orders-new.csv", found)
    write("orders-today.csv", found[border:])
