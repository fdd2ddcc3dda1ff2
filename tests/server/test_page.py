"""The web page in a real browser, over a scripted engine. Skipped where there is no chromium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from cogvlm2_lite.demo.shipped import sample_pictures
from cogvlm2_lite.events import PictureOpened, Progress, TextDelta
from cogvlm2_lite.text import Text
from tests.helpers.chat_client import client_of
from tests.helpers.pages import save_three_pages
from tests.helpers.scripted_server import ScriptedEngine, running
from tests.helpers.waiting import PATIENCE_S

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SIGN = next(p.path for p in sample_pictures() if p.path.name == "sign.png")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--use-fake-device-for-media-stream",  # a camera that shows a moving circle
                "--use-fake-ui-for-media-stream",
            ],
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
    shows(page, "#state", "Ready")
    yield page
    context.close()
    assert faults == []


def shows(page: Any, where: str, words: str) -> None:
    playwright.expect(page.locator(where)).to_have_text(words, timeout=PATIENCE_S * 1000)


def becomes_true(page: Any, expression: str) -> None:
    """Wait for an expression; Playwright's own way needs eval, which the page's policy forbids."""
    for _ in range(int(PATIENCE_S * 20)):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never true: {expression}")


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
    assert page.locator("#conversations li").count() == 0


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
    page.click("#drop-picture")
    assert page.is_hidden("#preview")


def test_a_picture_can_be_pasted_and_text_stays_text(page: Any) -> None:
    page.evaluate(
        """async () => {
            const t = new DataTransfer();
            const c = document.createElement('canvas');
            const blob = await new Promise((done) => c.toBlob(done));
            t.items.add(new File([blob], 'a.png', {type: 'image/png'}));
            const paste = (data) => document.getElementById('question').dispatchEvent(
                new ClipboardEvent('paste',
                    {clipboardData: data, bubbles: true, cancelable: true}));
            paste(new DataTransfer());
            if (!document.getElementById('preview').hidden) throw new Error('nothing was pasted');
            paste(t);
        }"""
    )
    page.wait_for_selector("#preview:not([hidden])")


def test_a_notice_is_shown_and_another_page_can_be_asked_about(
    page: Any, engine: ScriptedEngine, tmp_path: Path
) -> None:
    scan = save_three_pages(tmp_path)
    page.set_input_files("#file", scan)
    shows(page, "#thumb-name", "scan.tif")  # the browser can't show this kind
    engine.extra = [
        PictureOpened(page=1, pages=3, notices=(Text("This is page 1 of {n}.", n=3),)),
    ]
    ask(page, "what is it")
    page.wait_for_selector(".again")
    assert engine.asked[-1].page is None
    assert page.inner_text(".note").startswith("This is page 1 of 3.")
    assert page.inner_text(".asked .file") == "scan.tif"
    page.reload()
    playwright.expect(page.locator(".note")).to_contain_text("page 1 of 3")
    page.click(".other-page")
    assert page.input_value("#page") == "2"
    assert page.input_value("#question") == "what is it"
    engine.extra = []
    page.press("#question", "Enter")
    page.wait_for_selector(".again")
    assert (engine.asked[-1].image, engine.asked[-1].page) == (scan.read_bytes(), 2)
    assert engine.asked[-1].history == ()
    assert page.locator(".note").inner_text().startswith("4 tokens")


def test_a_picture_of_a_kind_that_the_browser_does_not_know_is_sent(
    page: Any, engine: ScriptedEngine, tmp_path: Path
) -> None:
    file = tmp_path / "IMG_1.HEIC"
    file.write_bytes(b"a picture of a phone")
    page.set_input_files("#file", file)
    shows(page, "#thumb-name", "IMG_1.HEIC")
    ask(page, "what is it")
    page.wait_for_selector(".again")
    assert engine.asked[-1].image == file.read_bytes()


def test_what_is_no_picture_is_refused_in_words(page: Any) -> None:
    page.set_input_files(
        "#file", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"no picture"}
    )
    shows(page, "#message", "This is not a picture file.")
    assert page.is_hidden("#preview")


def test_a_picture_is_taken_with_the_camera(page: Any, engine: ScriptedEngine) -> None:
    page.click("#camera")
    becomes_true(page, "document.querySelector('video').videoWidth > 0")
    page.click("#camera-cancel")
    page.wait_for_selector("#camera-dialog", state="hidden")
    assert page.is_hidden("#preview")
    page.click("#camera")
    becomes_true(page, "document.querySelector('video').videoWidth > 0")
    page.click("#camera-take")
    page.wait_for_selector("#preview:not([hidden])")
    assert page.evaluate("document.querySelector('video').srcObject === null")
    ask(page, "what is it")
    page.wait_for_selector(".again")
    image = engine.asked[-1].image
    assert image is not None
    assert image.startswith(b"\xff\xd8")  # a JPEG


def test_without_a_camera_the_page_says_so(page: Any) -> None:
    page.evaluate(
        "() => { navigator.mediaDevices.getUserMedia = async () => { throw new Error('none'); }; }"
    )
    page.click("#camera")
    playwright.expect(page.locator("#message")).to_contain_text("The camera")


MARKDOWN = """# Invoice

| item | price |
|:-----|------:|
| bus  | **12.50** |

```python
print("total")
```

1. [the shop](https://shop.example/very/long?x=1)
2. ![a picture](https://evil.example/track.png) and <img src=x onerror=alert(1)>
3. [never](javascript:alert(1))
"""


def test_markdown_is_shown_and_nothing_of_it_is_loaded(
    page: Any, browser: Any, engine: ScriptedEngine
) -> None:
    engine.extra = [TextDelta(text=MARKDOWN)]
    ask(page, "fine")
    page.wait_for_selector(".again")
    engine.extra = []
    page.wait_for_selector(".said table")
    assert page.inner_text(".said h1") == "Invoice"
    assert page.inner_text(".said td >> nth=1") == "12.50"
    align = "getComputedStyle(document.querySelectorAll('td')[1]).textAlign"
    assert page.evaluate(align) == "right"
    # `opened` fails the test when anything is asked of another place.
    assert page.locator(".said img, .said script").count() == 0
    assert "<img src=x" in page.inner_text(".said")
    links = page.locator(".said a")
    assert links.count() == 2
    assert links.first.inner_text() == "the shop (https://shop.example/very/long?x=1)"
    assert links.first.get_attribute("rel") == "noopener noreferrer"
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click(".code-head button")
    shows(page, ".code-head button", "Copied")
    assert page.evaluate("navigator.clipboard.readText()") == 'print("total")\n'
    page.click(".note button >> nth=0")
    becomes_true(page, "navigator.clipboard.readText().then((t) => t.startsWith('# Invoice'))")
    page.reload()
    page.wait_for_selector(".said table")  # shown so again when it comes out of the history


def test_an_answer_shows_while_it_is_written(page: Any, engine: ScriptedEngine) -> None:
    engine.extra = [TextDelta(text="**bold** and")]
    ask(page, "please wait")
    page.wait_for_selector(".said strong")
    assert page.inner_text("#send") == "Stop"
    engine.extra = []
    engine.go.set()
    page.wait_for_selector(".again")
    engine.go.clear()
    shows(page, ".said", "bold and please wait")


def test_conversations_are_found_again(page: Any) -> None:
    for words in ("about a red bus", "about a green tree"):
        page.click("#new")
        ask(page, words)
        page.wait_for_selector(".again")
    rows = page.locator("#conversations .name")
    page.fill("#search", "TREE green")
    playwright.expect(rows).to_have_text(["about a green tree"])
    page.fill("#search", "no such words")
    shows(page, "#conversations", "Nothing found.")
    page.fill("#search", "")
    page.click("text=about a red bus >> nth=0")
    shows(page, ".said", "about a red bus")


def test_the_keyboard_is_enough(page: Any, engine: ScriptedEngine) -> None:
    engine.over.clear()
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("/")
    page.keyboard.type("please wait")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("for me")
    page.keyboard.press("Enter")
    shows(page, ".said", "please wait")
    assert engine.asked[-1].question == "please wait\nfor me"
    page.keyboard.press("Escape")
    assert engine.over.wait(PATIENCE_S)
    playwright.expect(page.locator(".note")).to_contain_text("Stopped.")
    page.keyboard.press("Alt+n")
    page.wait_for_selector("#welcome")
    assert page.evaluate("document.activeElement.id") == "question"
    order = []
    for _ in range(6):
        order.append(page.evaluate("document.activeElement.id"))
        page.keyboard.press("Shift+Tab")
    assert {"question", "camera", "pick"} <= set(order)


def test_the_memory_bar_shows_the_plan_and_what_is_held(browser: Any) -> None:
    mib = 2**20
    phase = {
        "resident_bytes": {"vision tower": 30 * mib, "language expert": 50 * mib},
        "streamed_bytes": {"language expert": 5 * mib}, "buffers": 2, "buffer_bytes": mib,
        "cache_bytes": 10 * mib, "scratch_bytes": 8 * mib,
    }  # fmt: skip
    phases = [{"phase": name, **phase} for name in ("encode", "prefill with picture", "decode")]
    plan = {"peak_bytes": 200 * mib, "devices": [{"device": "cpu", "phases": phases}]}

    class Planned(ScriptedEngine):
        def load(self) -> None:
            super().load()
            assert self.loaded is not None
            self.loaded = structs.replace(self.loaded, plan=plan)

    engine = Planned()
    engine.extra = [Progress(phase="encode", done=1, total=2, held_bytes=60 * mib)]
    with running(engine) as server:
        for page in opened(browser, server.address):
            shows(page, "#memory-text", "Memory: 200 MiB planned")
            widths = page.evaluate(
                "[...document.querySelectorAll('#memory-bar span')].map((s) => s.style.width)"
            )
            assert widths == ["15%", "25%", "5%", "5%"]
            shows(page, "#memory-legend li >> nth=0", "vision weights 30 MiB")
            shows(page, "#memory-streamed", "5 MiB of weights are streamed for each token.")
            ask(page, "hello")
            shows(page, "#memory-text", "Memory: 60 MiB of 200 MiB planned")
            page.reload()  # from the server's counters this time
            shows(page, "#memory-text", "Memory: 60 MiB of 200 MiB planned")
            mark = page.evaluate("document.querySelector('#memory-bar i').style.left")
            assert mark == "30%"


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
        assert page.is_visible("#conversations")


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


def test_a_model_that_was_unloaded_is_named(browser: Any) -> None:
    engine = ScriptedEngine()
    with running(engine) as server, client_of(server) as client:
        for page in opened(browser, server.address):
            assert client.post("/api/generate", json={"keep_alive": 0}).status_code == 200
            page.reload()
            shows(page, "#state", "The next question loads the model")
            client.post("/api/generate", json={})
            page.reload()
            shows(page, "#state", "Ready")
