"""The page in a real browser: search, history, recommendations with reasons, keyboard, phone width, keys."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from adrec import ADRec
from adrec.serve.keys import new_key
from serve.server import serving

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield found
        found.close()


@pytest.fixture(scope="module")
def films(small_run: Path) -> Path:
    path = small_run.parent / "films.csv"
    words = "one two three four five six seven eight nine ten eleven none"
    titles = [f"Film <b>{word}</b>" for word in words.split()]
    pl.DataFrame({"item_id": [f"item {at}" for at in range(12)], "title": titles}).write_csv(path)
    return path


@pytest.fixture(scope="module")
def address(small_run: Path, films: Path) -> Iterator[str]:
    with serving(small_run, "--attributes", films, "--names", "title") as client:
        yield str(client.base_url)


@pytest.fixture
def page(browser: playwright.Browser, address: str) -> Iterator[playwright.Page]:
    page = browser.new_page(viewport={"width": 390, "height": 844})
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda each: problems.append(each.text) if each.type == "error" else None)
    page.goto(address)
    yield page
    page.close()
    assert problems == []


def listed(page: playwright.Page) -> list[str]:
    return [each.inner_text() for each in page.locator("#items .name").all()]


def test_a_history_by_keyboard_alone(page: playwright.Page, small_run: Path) -> None:
    expect = playwright.expect
    expect(page.locator("#items > li")).to_have_count(10)
    expect(page.locator("#items .id").first).to_have_text("popular")
    for text in ("four", "five", "six"):
        page.get_by_role("combobox", name="Add an item").fill(text)
        expect(page.locator("#found li")).to_have_count(1)
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
    expect(page.locator("#history li")).to_have_count(3)
    expect(page.locator("#items .why").first).to_contain_text("Why: Film <b>")
    model = ADRec.load(small_run, device="cpu")
    table = model.recommend(histories=[["item 3", "item 4", "item 5"]], k=10)
    expect(page.locator("#items > li")).to_have_count(table.height)
    titles = dict(pl.read_csv(small_run.parent / "films.csv").iter_rows())
    assert listed(page) == [titles[item] for item in table["item_id"]]
    page.keyboard.press("Tab")  # to the user's field
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate(
        "document.activeElement.ariaLabel || document.activeElement.getAttribute('aria-label')"
    ).startswith("Remove")
    page.keyboard.press("Enter")
    expect(page.locator("#history li")).to_have_count(2)


def test_settings_and_a_users_history(page: playwright.Page) -> None:
    expect = playwright.expect
    page.get_by_label("or take a user's history").fill("user 3")
    page.get_by_role("button", name="Take").click()
    expect(page.locator("#history li").first).to_contain_text("Film")
    expect(page.locator("#items .id").first).to_contain_text("%")
    page.get_by_label("Items", exact=True).fill("2")
    page.get_by_label("Items", exact=True).press("Tab")
    expect(page.locator("#items > li")).to_have_count(2)
    page.get_by_label("Seen items").select_option("keep")
    page.get_by_label("Diversity").fill("0.9")
    expect(page.locator("#diversity-value")).to_have_text("0.9")
    page.get_by_role("button", name="Clear the history").click()
    expect(page.locator("#items .id").first).to_have_text("popular")
    expect(page.locator("#model")).to_contain_text("adrec run")


def test_nothing_is_wider_than_a_phone(page: playwright.Page) -> None:
    page.get_by_label("or take a user's history").fill("user 3")
    page.get_by_role("button", name="Take").click()
    playwright.expect(page.locator("#history li").first).to_be_visible()
    for width in (320, 390, 768, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_nothing_is_fetched_from_elsewhere(browser: playwright.Browser, address: str) -> None:
    page = browser.new_page()
    wanted: list[str] = []
    page.on("request", lambda request: wanted.append(request.url))
    page.goto(address)
    playwright.expect(page.locator("#items > li").first).to_be_visible()
    assert wanted and all(each.startswith((address, "data:")) for each in wanted)
    page.close()


def test_a_key_is_asked_for(browser: playwright.Browser, small_run: Path, tmp_path: Path) -> None:
    key, digest = new_key()
    (tmp_path / "keys").write_text(digest + "\n")
    with serving(small_run, "--api-key-file", tmp_path / "keys") as client:
        page = browser.new_page()
        page.goto(str(client.base_url))
        page.get_by_label("API key").fill(key)
        page.get_by_role("button", name="Use key").click()
        playwright.expect(page.locator("#items > li").first).to_be_visible()
        page.close()
