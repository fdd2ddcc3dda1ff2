"""Measures the list and the search of the chat page in chromium, with many conversations.

    python -m benchmarks.chat_page --conversations 1000 --picture-kib 200

The conversations are written as version 0.2 stored them, so the first number is their conversion.
A search is one change of the search field, until the list is laid out again. Needs playwright and
chromium.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
from typing import Any

from playwright.sync_api import sync_playwright

from tests.helpers.scripted_server import running

_FILL = """([count, bytes]) => new Promise((done) => {
    const request = indexedDB.open('cogvlm2-lite', 1);
    request.onupgradeneeded = () => request.result.createObjectStore('talks', { keyPath: 'id' });
    request.onsuccess = async () => {
        const base = request.result;
        const words = 'The picture shows a red bus at a stop, two people and a sign. '.repeat(12);
        for (let id = 1; id <= count; id += 1) {
            const turns = [1, 2, 3].map((n) => ({ question: `question ${n}`, answer: `${words} N${id}N`, note: '' }));
            const picture = 'data:image/png;base64,' + btoa(String(id).padEnd(bytes, 'x'));
            const put = base.transaction('talks', 'readwrite').objectStore('talks').put(
                { id, name: `conversation ${id}`, picture, pictureName: 'a.png', picturePage: 0, pictureTurn: 0, turns });
            await new Promise((next) => { put.onsuccess = next; });
        }
        base.close();
        done();
    };
})"""  # noqa: E501

_SEARCH = """(words) => {
    const field = document.getElementById('search');
    const began = performance.now();
    field.value = words;
    field.dispatchEvent(new Event('input'));
    document.getElementById('conversations').getBoundingClientRect();
    return performance.now() - began;
}"""

_ROWS = "document.querySelectorAll('#conversations .name').length"


def main() -> None:
    """Fill a fresh browser, open the page, and search."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--conversations", type=int, default=1000)
    parser.add_argument("--picture-kib", type=int, default=200)
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with running() as server, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_context().new_page()
        page.set_default_timeout(600_000)
        page.goto(f"{server.address}/favicon.svg")
        page.evaluate(_FILL, [options.conversations, options.picture_kib * 1024])
        print(f"open and convert: {opened_s(page, server.address):.2f} s")
        print(f"open again: {opened_s(page, server.address):.2f} s")
        for words in ("", "bus", "n77n", "red sign n7", "no such words"):
            times = [page.evaluate(_SEARCH, words) for _ in range(5)]
            rows = page.evaluate(_ROWS)
            print(f"search {words!r}: {statistics.median(times):.1f} ms, {rows} rows")
        browser.close()


def opened_s(page: Any, address: str) -> float:
    """Return the seconds until the list is shown."""
    page.goto(address)
    page.wait_for_selector("#conversations .name")
    seconds: float = page.evaluate("performance.now() / 1000")
    return seconds


if __name__ == "__main__":
    main()
