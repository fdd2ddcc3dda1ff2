"""The web page in a real browser, over a scripted engine. Skipped where there is no chromium."""

from __future__ import annotations

import base64
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from PIL import Image

from cogvlm2_lite.demo.shipped import sample_pictures
from cogvlm2_lite.errors import PromptTooLongError
from cogvlm2_lite.events import PictureOpened, Progress, TextDelta
from cogvlm2_lite.server.assets import read_assets
from cogvlm2_lite.text import Text
from tests.helpers.chat_client import client_of
from tests.helpers.pages import save_three_pages
from tests.helpers.scripted_server import ScriptedEngine, running
from tests.helpers.waiting import PATIENCE_S, wait_until

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
    page.on("console", lambda m: faults.append(m.text) if is_fault(m) else None)
    page.on(
        "request",
        lambda r: None if r.url.startswith((address, "data:", "blob:")) else faults.append(r.url),
    )
    page.goto(address)
    shows(page, "#state", "Ready")
    yield page
    context.close()
    assert faults == []


MAY_FAIL = ("/page/preview", "/v1/chat/completions", "/health")
"""Requests whose errors the page shows. /health answers 503 while a model is being loaded."""


def is_fault(message: Any) -> bool:
    """Return whether an error of the console is one; the page shows those of these requests."""
    return message.type == "error" and not message.location["url"].endswith(MAY_FAIL)


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
    shows(page, "#sure-text", "Delete “keep me” and its picture?")
    page.click("#sure-cancel")
    page.click("[aria-label='Delete: keep me']")
    page.keyboard.press("Escape")
    assert page.inner_text(".said") == "keep me"
    page.click("[aria-label='Delete: keep me']")
    page.click("#sure-ok")
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
    page.wait_for_selector("#thumb[src^=blob]")  # the browser can't show this kind
    engine.extra = [
        PictureOpened(page=1, pages=3, notices=(Text("This is page 1 of {n}.", n=3),)),
    ]
    ask(page, "what is it")
    page.wait_for_selector(".again")
    assert engine.asked[-1].page is None
    assert page.inner_text(".note").startswith("This is page 1 of 3.")
    page.wait_for_selector(".asked img[src^=blob]")
    page.reload()
    playwright.expect(page.locator(".note")).to_contain_text("page 1 of 3")
    page.click(".other-page")
    playwright.expect(page.locator("#page")).to_have_value("2")
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
    playwright.expect(page.locator("#message")).to_contain_text("picture")
    ask(page, "what is it")
    page.wait_for_selector(".again")
    assert engine.asked[-1].image == file.read_bytes()


def test_a_heic_picture_is_shown_and_sent_as_it_is(
    page: Any, engine: ScriptedEngine, tmp_path: Path
) -> None:
    heif = pytest.importorskip("pillow_heif")
    file = tmp_path / "IMG_2.heic"
    heif.from_pillow(Image.new("RGB", (640, 320), (200, 30, 30))).save(file)
    page.set_input_files("#file", file)
    page.wait_for_selector("#thumb[src^=blob]")
    becomes_true(page, "document.getElementById('thumb').naturalWidth === 640")
    ask(page, "what is it")
    page.wait_for_selector(".again")
    page.wait_for_selector(".asked img[src^=blob]")
    assert engine.asked[-1].image == file.read_bytes()


def test_what_is_no_picture_is_refused_in_words(page: Any) -> None:
    page.set_input_files(
        "#file", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"no picture"}
    )
    shows(page, "#message", "This is not a picture file.")
    page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": b""})
    shows(page, "#message", "The file is empty.")


def test_a_question_is_edited_within_its_bubble_on_a_phone(page: Any) -> None:
    page.set_viewport_size({"width": 360, "height": 700})
    drop_picture(page)
    ask(page, "what is it")
    page.wait_for_selector(".again")
    page.click("[aria-label='Edit the question']")
    bubble, field = (page.locator(one).bounding_box() for one in (".asked", ".editor textarea"))
    assert field["x"] + field["width"] < bubble["x"] + bubble["width"] - 5
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


FORMULAS = r"""The area is \(A = \pi r^2\) and costs $5 to $6:

\[
\begin{aligned}
x &= \frac{-b \pm \sqrt{b^2 - 4ac}}{2a} \\
- y &= \sum_{i=1}^{n} \mathbf{v}_i
\end{aligned}
\]

Broken: $\foo{<b>}$, \(\href{javascript:alert(1)}{x}\)
"""


def test_formulas_are_shown_and_prices_stay(page: Any, engine: ScriptedEngine) -> None:
    pytest.importorskip("latex2mathml")
    engine.extra = [TextDelta(text=FORMULAS)]
    ask(page, "fine")
    page.wait_for_selector(".again")
    engine.extra = []
    page.wait_for_selector(".said math[display=block] mfrac")
    assert page.locator(".said math").count() == 3
    assert "and costs $5 to $6:" in page.inner_text(".said p >> nth=0")
    assert page.inner_text(".said code") == r"$\foo{<b>}$"
    assert page.locator(".said [href], .said img").count() == 0
    assert page.get_attribute(".formula >> nth=0", "title") == r"\(A = \pi r^2\)"
    # MathML that the browser does not know would have no height of its own.
    tall = "document.querySelector('.said mfrac').getBoundingClientRect().height"
    assert page.evaluate(f"{tall} > 30")


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


def said_after_reload(page: Any, count: int) -> list[str]:
    page.reload()
    page.wait_for_selector(f"#turns > li:nth-child({count}) .again")
    texts: list[str] = page.locator(".said").all_inner_texts()
    return texts


def opened_again(page: Any) -> Any:
    """Open a second tab of the same browser; it shows the conversation that was opened last."""
    tab = page.context.new_page()
    tab.set_default_timeout(PATIENCE_S * 1000)
    tab.goto(page.url)
    shows(tab, "#state", "Ready")
    return tab


def test_a_click_on_the_open_conversation_loses_no_answer(page: Any) -> None:
    for words in ("first", "second"):
        ask(page, words)
        shows(page, ".said >> nth=-1", words)
        page.wait_for_selector(".again")
        page.click("#conversations .open .name")
    ask(page, "third")
    page.wait_for_selector("#turns > li:nth-child(3) .again")
    assert said_after_reload(page, 3) == ["first", "second", "third"]


def test_an_answer_goes_on_while_other_conversations_are_open(
    page: Any, engine: ScriptedEngine
) -> None:
    ask(page, "please wait and end")
    shows(page, ".said", "please wait")
    page.click("#conversations .open .name")  # stopped the answer before
    page.click("#new")
    page.wait_for_selector("#conversations .busy")
    assert page.inner_text("#send") == "Ask"
    ask(page, "another")
    shows(page, "#send", "Stop")
    page.click("text=please wait and end")
    shows(page, ".said", "please wait")
    page.click("#language")
    page.click("#language")  # draws the answer in progress again
    engine.go.set()
    shows(page, ".said", "please wait and end")
    page.wait_for_selector(".again")
    engine.go.clear()
    page.click("#conversations .name >> nth=0")
    shows(page, ".said", "another")
    page.wait_for_selector(".again")
    assert page.locator("#conversations .busy").count() == 0


KEPT = """(name) => new Promise((done) => {
    const request = indexedDB.open('cogvlm2-lite');
    request.onsuccess = () => {
        const base = request.result;
        base.transaction(name).objectStore(name).getAll().onsuccess = (event) => {
            base.close();
            done(event.target.result);
        };
    };
})"""


def kept(page: Any, store: str) -> list[dict[str, Any]]:
    """Return what an object store of the page contains."""
    found: list[dict[str, Any]] = page.evaluate(KEPT, store)
    return found


def turn_kept(page: Any, index: int) -> dict[str, Any]:
    turn: dict[str, Any] = kept(page, "talks")[0]["turns"][index]
    return turn


def test_a_growing_answer_survives_the_end_of_the_page(page: Any, engine: ScriptedEngine) -> None:
    ask(page, "please wait")
    shows(page, ".said", "please wait")
    wait_until(lambda: turn_kept(page, 0)["versions"][0]["answer"].strip() == "please wait")
    page.evaluate("window.onpagehide = null")  # as if the browser had crashed
    assert said_after_reload(page, 1) == ["please wait"]
    assert "Stopped because the page was closed." in page.inner_text(".note")


def test_a_question_that_is_being_typed_survives_a_reload(page: Any) -> None:
    page.fill("#question", "half a que")
    page.reload()
    becomes_true(page, "document.getElementById('question').value === 'half a que'")


def test_try_again_keeps_the_earlier_answer(page: Any, engine: ScriptedEngine) -> None:
    for words in ("one", "two"):
        ask(page, words)
        shows(page, ".said >> nth=-1", words)
        page.wait_for_selector(".again")
    engine.extra = [TextDelta(text="better:")]
    page.click(".again")
    shows(page, ".said >> nth=-1", "better: two")
    engine.extra = []
    page.wait_for_selector(".again")
    assert list(engine.asked[-1].history) == [("one", "one")]
    page.click(".older")
    shows(page, ".said >> nth=-1", "two")
    assert page.is_disabled(".older")
    wait_until(lambda: turn_kept(page, 1)["chosen"] == turn_kept(page, 1)["versions"][0]["id"])
    assert said_after_reload(page, 2) == ["one", "two"]
    ask(page, "three")  # the answer that is shown is the one that is sent
    page.wait_for_selector("#turns > li:nth-child(3) .again")
    assert list(engine.asked[-1].history) == [("one", "one"), ("two", "two")]
    page.click(".newer")
    shows(page, ".said >> nth=1", "better: two")


def test_a_question_is_edited_and_the_later_turns_are_kept(
    page: Any, engine: ScriptedEngine
) -> None:
    drop_picture(page)
    for count, words in enumerate(("one", "two", "three"), 1):
        ask(page, words)
        page.wait_for_selector(f"#turns > li:nth-child({count}) .again")
    page.click(".edit >> nth=1")
    page.fill(".editor textarea", "changed")
    page.keyboard.press("Escape")
    assert page.locator(".editor").count() == 0
    page.click(".edit >> nth=1")
    assert page.input_value(".editor textarea") == "two"
    page.fill(".editor textarea", "half of it")
    page.reload()  # loses nothing that was typed
    becomes_true(page, "document.querySelector('.editor textarea')?.value === 'half of it'")
    page.fill(".editor textarea", "changed")
    page.press(".editor textarea", "Enter")
    page.wait_for_selector("#turns > li:nth-child(2) .again")
    assert page.locator(".said").all_inner_texts() == ["one", "changed"]
    assert list(engine.asked[-1].history) == [("one", "one")]
    assert engine.asked[-1].image == SIGN.read_bytes()
    ask(page, "more")
    page.wait_for_selector("#turns > li:nth-child(3) .again")
    page.click(".older-question")
    playwright.expect(page.locator(".said")).to_have_text(["one", "two", "three"])
    wait_until(
        lambda: (
            next(iter(kept(page, "talks")[0]["edited"].values()))["id"] == turn_kept(page, 1)["id"]
        )
    )
    assert said_after_reload(page, 3) == ["one", "two", "three"]
    page.click(".newer-question")
    playwright.expect(page.locator(".said")).to_have_text(["one", "changed", "more"])


def test_an_answer_that_was_stopped_is_continued(page: Any, engine: ScriptedEngine) -> None:
    engine.over.clear()
    ask(page, "please wait")
    shows(page, ".said", "please wait")
    page.keyboard.press("Escape")
    playwright.expect(page.locator(".note")).to_contain_text("Stopped.")
    engine.go.set()
    page.click(".continue")
    shows(page, ".said", "please wait please wait")  # the engine repeats the question
    page.wait_for_selector(".again")
    engine.go.clear()
    assert engine.asked[-1].continue_from == " please wait"
    assert page.locator(".continue").count() == 0
    assert said_after_reload(page, 1) == ["please wait please wait"]


def test_settings_are_kept_and_used(page: Any, engine: ScriptedEngine) -> None:
    page.click("#settings")
    for name, value in (
        ("tokens", "77"), ("temperature", "0.5"), ("top-p", "0.9"), ("seed", "5"), ("system", "Be brief."),  # noqa: E501
    ):  # fmt: skip
        page.fill(f"#set-{name}", value)
    page.click("#settings-ok")
    page.reload()
    assert page.get_attribute("#settings", "title") == "Settings (changed)"
    ask(page, "hello")
    page.wait_for_selector(".again")
    sampling = engine.asked[-1].sampling
    assert (sampling.max_new_tokens, sampling.temperature, sampling.top_p) == (77, 0.5, 0.9)
    assert sampling.seed == 5
    assert engine.asked[-1].question == "Be brief.\nhello"
    page.click("#settings")
    page.fill("#set-temperature", "9")
    page.click("#settings-ok")
    assert page.is_visible("#settings-dialog")  # the browser says why
    page.click("#settings-reset")
    assert page.get_attribute("#set-temperature", "placeholder") == "0 (default)"
    page.click("#settings-ok")
    page.wait_for_selector("#settings-dialog", state="hidden")
    page.click(".again")
    wait_until(lambda: engine.asked[-1].question == "hello")
    assert engine.asked[-1].sampling.max_new_tokens == 2048
    page.wait_for_selector(".newer")


def test_an_adapter_is_chosen_beside_the_model(browser: Any, page: Any) -> None:
    assert page.is_hidden("#model")  # there is only one
    engine = ScriptedEngine()
    with running(engine, adapters=("invoices", "captions")) as server:
        for page in opened(browser, server.address):
            page.wait_for_selector("#model")
            assert page.locator("#model option").all_text_contents() == [
                "scripted", "scripted:invoices", "scripted:captions"
            ]  # fmt: skip
            ask(page, "one")
            page.wait_for_selector(".again")
            assert engine.asked[-1].adapter == "invoices"
            page.select_option("#model", "scripted")
            page.reload()
            page.wait_for_selector("#model")
            assert page.input_value("#model") == "scripted"
            page.click(".again")
            page.wait_for_selector(".newer")
            assert engine.asked[-1].adapter == ""
            assert "Model: scripted." in page.text_content(".note")
            page.click(".older")
            assert "Model: scripted:invoices." in page.text_content(".note")


def test_a_server_that_ends_in_the_middle_loses_no_text(browser: Any) -> None:
    engine = ScriptedEngine()
    context = browser.new_context(locale="en-US")
    page = context.new_page()
    page.set_default_timeout(PATIENCE_S * 1000)
    with running(engine) as server:
        page.goto(server.address)
        ask(page, "please wait")
        shows(page, ".said", "please wait")
        page.route("**/v1/chat/completions", lambda route: route.abort())
        engine.die()
        page.wait_for_selector(".note.bad")
        shows(page, ".said", "please wait")
        page.click(".continue")
        playwright.expect(page.locator(".note")).to_contain_text(
            "The connection to the server ended"
        )
        shows(page, ".said", "please wait")
        page.unroute("**/v1/chat/completions")
        engine.go.set()
        page.click(".continue")
        shows(page, ".said", "please wait please wait")
    context.close()


def test_two_tabs_add_to_one_conversation(page: Any, engine: ScriptedEngine) -> None:
    ask(page, "first")
    page.wait_for_selector(".again")
    tab = opened_again(page)
    shows(tab, ".said", "first")
    ask(tab, "please wait")
    shows(page, ".said >> nth=1", "please wait")  # without a reload
    playwright.expect(page.locator(".note >> nth=1")).to_contain_text("in another tab")
    engine.go.set()
    tab.wait_for_selector("#turns > li:nth-child(2) .again")
    engine.go.clear()
    page.wait_for_selector("#turns > li:nth-child(2) .again")
    for one, words in ((page, "from here"), (tab, "from there")):
        ask(one, words)
        one.wait_for_selector("#turns > li:nth-child(3)")
    page.wait_for_selector("#turns > li:nth-child(4) .again")
    expected = ["first", "please wait", "from here", "from there"]
    assert said_after_reload(page, 4) == expected
    assert said_after_reload(tab, 4) == expected


def test_tabs_that_can_not_talk_overwrite_nothing(browser: Any, address: str) -> None:
    for page in opened(browser, address):
        page.context.add_init_script("BroadcastChannel.prototype.postMessage = () => {}")
        page.reload()
        ask(page, "first")
        page.wait_for_selector(".again")
        tab = opened_again(page)
        tab.wait_for_selector(".again")
        for one, words in ((page, "from here"), (tab, "from there")):
            ask(one, words)
            shows(one, ".said >> nth=-1", words)
            one.wait_for_selector(".again")
        assert said_after_reload(page, 3) == ["first", "from here", "from there"]


def test_a_conversation_that_another_tab_deleted_stays_deleted(
    page: Any, engine: ScriptedEngine
) -> None:
    ask(page, "please wait")
    shows(page, ".said", "please wait")
    tab = opened_again(page)
    tab.click("[aria-label='Delete: please wait']")
    tab.click("#sure-ok")
    page.wait_for_selector("#welcome")  # the answer was stopped
    assert kept(page, "talks") == kept(page, "texts") == kept(page, "pictures") == []


def test_a_conversation_is_renamed_in_all_tabs_and_exported(page: Any) -> None:
    drop_picture(page)
    ask(page, "what is it")
    page.wait_for_selector(".again")
    tab = opened_again(page)
    page.click(".rename")
    assert page.input_value("#sure-field") == "what is it"
    page.fill("#sure-field", "The ../sign: at 5")
    page.press("#sure-field", "Enter")
    shows(page, "#conversations .name", "The ../sign: at 5")
    shows(tab, "#conversations .name", "The ../sign: at 5")
    ask(tab, "and\nmore")  # does not bring the old name back
    tab.wait_for_selector("#turns > li:nth-child(2) .again")
    page.wait_for_selector("#turns > li:nth-child(2) .again")
    shows(page, "#conversations .name", "The ../sign: at 5")
    with page.expect_download() as download:
        page.click(".export")
    assert download.value.suggested_filename == "The sign at 5.md"
    picture = base64.b64encode(SIGN.read_bytes()).decode()
    assert Path(download.value.path()).read_text(encoding="utf-8") == (
        "# The ../sign: at 5\n\n![][picture 1]\n\n> what is it\n\nwhat is it\n\n"
        f"> and\n> more\n\nand more\n\n[picture 1]: data:image/png;base64,{picture}\n"
    )


def test_a_very_long_answer_keeps_its_form(page: Any, engine: ScriptedEngine) -> None:
    rows = "".join(f"| {n} | x |\n" for n in range(1200))
    items = "".join(f"{n}. item **{n}**\n" for n in range(1, 1001))
    code = "".join(f"f({n})\n" for n in range(2500))
    engine.extra = [
        TextDelta(
            text=f"| a | b |\n|---|--:|\n{rows}\n## Items\n\n{items}\n"
            f"~~~python\n{code}~~~\n\n{'word ' * 5000}*end*\n\n"
        )
    ]
    ask(page, "fine")
    page.wait_for_selector(".again")
    engine.extra = []
    page.reload()
    page.wait_for_selector(".said em")
    counts = page.evaluate(
        "['tbody tr', 'th', 'h2', 'li', 'li strong', 'em'].map("
        "(name) => document.querySelectorAll('.said ' + name).length)"
    )
    assert counts[0] == 1200
    assert counts[1] in {2, 4}  # the head of the table is repeated
    assert counts[2:] == [1, 1000, 1000, 1]
    assert page.evaluate(
        "[...document.querySelectorAll('.said ol > li')].every((li, n) => "
        "li.parentElement.start + [...li.parentElement.children].indexOf(li) === n + 1)"
    )
    blocks = "[...document.querySelectorAll('.said pre')].map((one) => one.textContent).join('')"
    assert page.evaluate(blocks) == code
    assert not page.locator(".tail").inner_text()
    assert "word word end" in page.inner_text(".said")


def test_a_clock_that_was_set_back_changes_no_order(page: Any) -> None:
    ask(page, "first")
    page.wait_for_selector(".again")
    page.evaluate("Date.now = () => 1000")
    ask(page, "second")
    page.wait_for_selector("#turns > li:nth-child(2) .again")
    assert said_after_reload(page, 2) == ["first", "second"]


def test_without_a_connection_to_the_store_the_answer_is_shown(page: Any) -> None:
    page.evaluate(
        "() => { IDBDatabase.prototype.transaction = () => { throw new Error('closed'); }; }"
    )
    ask(page, "hello")
    page.wait_for_selector(".again")
    assert page.inner_text(".said") == "hello"
    playwright.expect(page.locator("#message")).to_contain_text("can't store")


def test_the_newest_words_stay_in_view(page: Any, engine: ScriptedEngine) -> None:
    engine.extra = [TextDelta(text="# heading\n- item\n\n" * 60)]
    ask(page, "please wait")
    page.wait_for_selector(".said h1")
    end = "(() => { const t = document.getElementById('turns');"
    end += " return t.scrollHeight - t.scrollTop - t.clientHeight; })()"
    assert page.evaluate(end) < 60
    engine.extra = []
    engine.go.set()
    page.wait_for_selector(".again")
    engine.go.clear()
    becomes_true(page, "document.querySelector('.tail').textContent === ''")
    assert page.evaluate(end) < 60


def test_the_picture_is_enlarged(page: Any) -> None:
    drop_picture(page)
    ask(page, "what is it")
    page.wait_for_selector(".again")
    page.click(".asked img")
    becomes_true(page, "document.getElementById('picture-large').naturalWidth > 0")
    page.click("#picture-large")
    assert page.is_hidden("#picture-dialog")
    page.focus(".asked img")
    page.keyboard.press("Enter")
    assert page.is_visible("#picture-large")
    page.keyboard.press("Escape")
    assert page.is_hidden("#picture-dialog")


OLD_STORE = """(count) => new Promise((done) => {
    const request = indexedDB.open('cogvlm2-lite', 1);
    request.onupgradeneeded = () => request.result.createObjectStore('talks', { keyPath: 'id' });
    request.onsuccess = () => {
        window.base = request.result;
        const transaction = window.base.transaction('talks', 'readwrite');
        for (let id = 1; id <= count; id += 1) {
            transaction.objectStore('talks').put({
                id, name: `conversation ${id}`, picturePage: 0, pictureTurn: id % 3 ? 0 : -1,
                picture: id % 3 ? 'data:image/png;base64,' + btoa('x'.repeat(1000) + id) : null,
                pictureName: 'a.png', turns: [
                    { question: 'what is it', answer: `A bus with number N${id}N`, note: '5 tokens', bad: false },
                    { question: 'more', answer: 'It is *red*', note: '', bad: false, page: 1, pages: 3 },
                ],
            });
        }
        transaction.oncomplete = () => done(null);
    };
})"""  # noqa: E501


def test_conversations_of_the_first_version_are_taken_over(
    browser: Any, address: str, engine: ScriptedEngine
) -> None:
    context = browser.new_context(locale="en-US")
    old = context.new_page()
    old.goto(f"{address}/favicon.svg")
    old.evaluate(OLD_STORE, 300)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_S * 1000)
    page.add_init_script(
        """globalThis.reads = [];
        for (const name of ['get', 'getAll', 'openCursor']) {
            const real = IDBObjectStore.prototype[name];
            IDBObjectStore.prototype[name] = function (...values) {
                globalThis.reads.push(this.name);
                return real.apply(this, values);
            };
        }"""
    )
    page.goto(address)
    playwright.expect(page.locator("#message")).to_contain_text("all other tabs")
    old.evaluate("window.base.close()")  # the first version of the page does it only at its end
    rows = page.locator("#conversations .name")
    playwright.expect(rows).to_have_count(200)
    shows(page, "#message", "")
    page.evaluate("globalThis.reads.length = 0")
    page.fill("#search", "n77n BUS")
    playwright.expect(rows).to_have_text(["conversation 77"])
    page.fill("#search", "")
    page.click("text=Show all 300")
    playwright.expect(rows).to_have_count(300)
    assert page.evaluate("globalThis.reads") == []  # the list reads no conversation and no picture
    page.fill("#search", "n77n")
    rows.click()
    shows(page, ".said >> nth=0", "A bus with number N77N")
    shows(page, ".said em", "red")
    assert page.locator(".note >> nth=0").inner_text().startswith("5 tokens")
    assert page.evaluate("globalThis.reads.filter((name) => name === 'pictures').length") == 1
    assert (len(kept(page, "pictures")), len(kept(page, "talks"))) == (200, 300)
    ask(page, "and now")
    page.wait_for_selector("#turns > li:nth-child(3) .again")
    assert engine.asked[-1].image == b"x" * 1000 + b"77"
    assert engine.asked[-1].history[1] == ("more", "It is *red*")
    context.close()


def test_what_can_not_be_stored_is_named_and_shown(browser: Any, address: str) -> None:
    for page in opened(browser, address):
        page.add_init_script(
            """const put = IDBObjectStore.prototype.put;
            IDBObjectStore.prototype.put = function (value) {
                if (this.name === 'pictures') this.transaction.abort(); else put.call(this, value);
            };"""
        )
        page.reload()
        shows(page, "#state", "Ready")
        drop_picture(page)
        ask(page, "hello")
        shows(page, ".said", "hello")
        playwright.expect(page.locator("#message")).to_contain_text("can't store")
        page.wait_for_selector(".again")
        assert said_after_reload(page, 1) == ["hello"]  # the words are stored


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


def test_escape_in_a_dialog_stops_no_answer(page: Any, engine: ScriptedEngine) -> None:
    ask(page, "please wait and end")
    shows(page, ".said", "please wait")
    page.click("#settings")
    page.keyboard.press("Escape")
    page.wait_for_selector("#settings-dialog", state="hidden")
    engine.go.set()
    shows(page, ".said", "please wait and end")
    engine.go.clear()
    page.wait_for_selector(".again")


def test_a_question_waits_for_its_picture(page: Any, engine: ScriptedEngine) -> None:
    page.evaluate(
        """() => {
            const read = FileReader.prototype.readAsDataURL;
            FileReader.prototype.readAsDataURL = function (file) {
                setTimeout(() => read.call(this, file), 300);
            };
        }"""
    )
    page.set_input_files("#file", SIGN)
    ask(page, "what is it")
    page.wait_for_selector(".again")
    assert engine.asked[-1].image == SIGN.read_bytes()


def test_the_memory_bar_shows_the_plan_and_what_is_held(browser: Any) -> None:
    mib = 2**20
    phase = {
        "resident_bytes": {"vision tower": 30 * mib, "language expert": 50 * mib},
        "streamed_bytes": {"language expert": 5 * mib}, "buffers": 2, "buffer_bytes": 2 * mib,
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


def test_the_language_of_the_browser_is_used(browser: Any, address: str) -> None:
    context = browser.new_context(locale="zh-TW")
    page = context.new_page()
    page.goto(address)
    shows(page, "#send", "提问")
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    page.click("#language")
    assert page.evaluate("document.documentElement.lang") == "en"
    page.reload()
    shows(page, "#send", "Ask")
    context.close()


def test_sentences_of_the_server_are_chinese_too(page: Any, engine: ScriptedEngine) -> None:
    page.click("#language")
    notice = Text("This is page 1 of {pages}; the others were not read.", pages=3)
    engine.extra = [PictureOpened(page=1, pages=3, notices=(notice,))]
    ask(page, "hello")
    page.wait_for_selector(".again")
    engine.extra = []
    note = playwright.expect(page.locator(".note"))
    note.to_contain_text(re.compile("^这是共 3 页中的第 1 页.* 个词元"))
    page.click("#language")
    note.to_contain_text(re.compile("^This is page 1 of 3.* tokens in"))
    page.reload()
    note.to_contain_text("This is page 1 of 3")
    page.click("#language")
    note.to_contain_text(re.compile("^这是共 3 页中的第 1 页"))
    why = Text(
        "The prompt has {count} tokens; the context has room for {context}.", count=9, context=8
    )
    engine.error = PromptTooLongError("{why}", why=why)
    page.click(".again")
    page.wait_for_selector(".note.bad")
    engine.error = None
    assert "提示有 9 个 token；上下文只能容纳 8 个。" in page.inner_text(".note")
    page.click("#language")
    note.to_contain_text("The prompt has 9 tokens; the context has room for 8.")


def test_every_text_is_in_both_languages(page: Any) -> None:
    keys = """() => import('/words.js').then(({ TEXT }) => Object.values(TEXT).map(
        (words) => Object.entries(words).map(([key, word]) => `${key} ${typeof word} ${word.length}`
            .replace(/string .*/, word ? 'text' : 'missing'))))"""
    english, chinese = page.evaluate(keys)
    assert sorted(english) == sorted(chinese)  # functions with as many values, too
    assert not any(key.endswith("missing") for key in english + chinese)
    scripts = [content.decode() for path, (content, _) in read_assets().items() if ".js" in path]
    used = set(re.findall(r"\bwords\.(?!js)(\w+)", "".join(scripts)))
    assert used <= {key.split()[0] for key in english}


def test_what_the_page_shows_has_enough_contrast() -> None:
    css = read_assets()["/page.css"][0].decode()
    for scheme in re.findall(r":root \{(.*?)\}", css, re.DOTALL):
        colors = dict(re.findall(r"--([\w-]+): (#\w{6})", scheme))
        for ink, ground in (
            ("ink", "ground"), ("ink", "raised"), ("ink", "mine"), ("ink", "inset"), ("soft", "ground"),  # noqa: E501
            ("soft", "raised"), ("soft", "inset"), ("accent-ink", "accent"), ("accent", "ground"), ("bad", "ground"),  # noqa: E501
        ):  # fmt: skip
            light, dark = sorted((luminance(colors[ink]), luminance(colors[ground])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, f"{ink} on {ground}"


def luminance(color: str) -> float:
    """Return the relative luminance, as WCAG defines it."""
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_end_of_an_answer_is_spoken_once(page: Any, engine: ScriptedEngine) -> None:
    assert page.locator("#turns[aria-live]").count() == 0
    ask(page, "please wait")
    shows(page, ".said", "please wait")
    assert page.inner_text("#spoken") == ""
    engine.go.set()
    playwright.expect(page.locator("#spoken")).to_contain_text("please wait 3 tokens")
    engine.go.clear()
    names = page.evaluate(
        "[...document.querySelectorAll('button')].filter((one) => one.checkVisibility()"
        " && !/\\w{2}/.test(one.textContent + (one.getAttribute('aria-label') || ''))).map((one) => one.outerHTML)"  # noqa: E501
    )
    assert names == ['<button id="language" class="quiet">中文</button>']


def test_the_page_fits_a_telephone(browser: Any, address: str) -> None:
    for page in opened(
        browser, address, viewport={"width": 320, "height": 640}, color_scheme="dark"
    ):
        ask(page, "a question of some length about what can be seen " * 4)
        page.wait_for_selector(".again")
        assert page.evaluate("document.documentElement.scrollWidth") <= 320
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
        shows(page, "#key-label", "This server requires an API key.")
        page.fill("#key", "a-wrong-key")
        page.press("#key", "Enter")
        shows(page, "#key-label", "The API key is wrong. Enter the right one.")
        page.keyboard.press("Escape")  # came back for ever before
        shows(page, ".note.bad", "This server requires an API key. Try again")
        page.click(".again")
        page.fill("#key", key)
        page.click("#key-ok")
        page.wait_for_selector(".again")
        assert page.inner_text(".said") == "hello"
        tab = opened_again(page)  # has no key yet: it shows the text without its form
        shows(tab, ".said", "hello")
        page.evaluate("sessionStorage.setItem('key', 'another-key-than-before')")
        ask(page, "**bold**")  # as if the server had got another key
        shows(page, "#key-label", "The API key is wrong. Enter the right one.")
        page.reload()  # before an answer to the dialog
        shows(page, ".asked >> nth=1", "**bold**")
        page.click(".again")
        page.fill("#key", key)
        page.click("#key-ok")
        page.wait_for_selector(".said strong")
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
