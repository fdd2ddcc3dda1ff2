"""The web page in a real browser, over a scripted engine. Skipped where there is no chromium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from cogvlm2_lite.demo.shipped import sample_pictures
from tests.server.scripted import PATIENCE_S, ScriptedEngine, running

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SIGN = next(p.path for p in sample_pictures() if p.path.name == "sign.png")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture(scope="module")
def address(engine: ScriptedEngine) -> Iterator[str]:
    with running(engine) as server:
        yield server.address


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    yield from opened(browser, address)


def opened(browser: Any, address: str, **options: Any) -> Iterator[Any]:
    """Open the page; errors of its script, and requests to other places, fail the test."""
    context = browser.new_context(locale="en-US", **options)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_S * 1000)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
    page.on(
        "request",
        lambda r: None if r.url.startswith((address, "data:", "blob:")) else faults.append(r.url),
    )
    page.goto(address)
    shows(page, "#state", "ready")
    yield page
    context.close()
    assert faults == []


def shows(page: Any, where: str, words: str) -> None:
    playwright.expect(page.locator(where)).to_have_text(words, timeout=PATIENCE_S * 1000)


def ask(page: Any, words: str) -> None:
    page.fill("#question", words)
    page.press("#question", "Enter")


def drop_picture(page: Any) -> None:
    page.set_input_files("#file", SIGN)
    page.wait_for_selector("#preview:not([hidden])")


def test_a_picture_is_asked_about_in_several_turns(page: Any, engine: ScriptedEngine) -> None:
    drop_picture(page)
    ask(page, "what is it")
    page.wait_for_selector(".again")
    assert page.inner_text(".said") == "what is it"
    assert engine.asked[-1].image == SIGN.read_bytes()
    ask(page, "and more")
    shows(page, ".said >> nth=1", "and more")
    page.wait_for_selector("li:nth-child(2) .again")
    assert engine.asked[-1].history == (("what is it", "what is it"),)
    assert engine.asked[-1].image == SIGN.read_bytes()


def test_a_conversation_outlives_a_reload_and_can_be_deleted(page: Any) -> None:
    drop_picture(page)
    ask(page, "keep me")
    page.wait_for_selector(".again")
    page.reload()
    page.wait_for_selector(".said")
    assert page.inner_text(".said") == "keep me"
    assert page.locator(".asked img").count() == 1
    page.click("[aria-label='Delete: keep me']")
    page.wait_for_selector("#welcome")
    assert page.locator("#talks li").count() == 0


def test_an_answer_is_stopped_and_the_page_goes_on(page: Any, engine: ScriptedEngine) -> None:
    engine.over.clear()
    ask(page, "please wait for ever")
    shows(page, ".said", "please wait")
    page.click("#send")
    assert engine.over.wait(PATIENCE_S)
    playwright.expect(page.locator(".note")).to_contain_text("Stopped.")
    ask(page, "again")
    shows(page, ".said >> nth=1", "again")


def test_html_of_an_answer_stays_text(page: Any) -> None:
    ask(page, "<img/src=x/onerror=alert(1)> <script>alert(2)</script>")
    page.wait_for_selector(".again")
    assert page.locator(".said img, .said script").count() == 0
    assert "<script>" in page.inner_text(".said")


def test_a_picture_can_be_dropped_on_the_page(page: Any) -> None:
    data = page.evaluate_handle(
        """async () => {
            const t = new DataTransfer();
            const c = document.createElement('canvas');
            const blob = await new Promise((done) => c.toBlob(done));
            t.items.add(new File([blob], 'a.png', {type: 'image/png'}));
            return t;
        }"""
    )
    page.dispatch_event("body", "drop", {"dataTransfer": data})
    page.wait_for_selector("#preview:not([hidden])")


def test_the_page_speaks_chinese(page: Any) -> None:
    page.click("#language")
    assert page.inner_text("#send") == "提问"
    page.reload()
    shows(page, "#welcome", "就一张图片提问")


def test_the_page_fits_a_telephone(browser: Any, address: str) -> None:
    for page in opened(
        browser, address, viewport={"width": 360, "height": 640}, color_scheme="dark"
    ):
        ask(page, "a question of some length about what can be seen " * 4)
        page.wait_for_selector(".again")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 25, 24)"
        page.click("#menu")
        assert page.is_visible("#talks")


def test_with_a_key_the_page_asks_for_it(browser: Any) -> None:
    from cogvlm2_lite.server.guard import Access

    key = "a-long-and-secret-key"
    with running(access=Access(key=key)) as server:
        context = browser.new_context(locale="en-US")
        page = context.new_page()
        page.goto(server.address)
        ask(page, "hello")
        page.fill("#key", key)
        page.click("#key-ok")
        page.wait_for_selector(".again")
        assert page.inner_text(".said") == "hello"
        context.close()
