"""Markdown of answers: trees of a few elements, whatever the text."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cogvlm2_lite.formulas import TAGS as MATH_TAGS
from cogvlm2_lite.server.markdown import MOST_LETTERS, parse
from tests.helpers.chat_client import client_of
from tests.helpers.scripted_server import running

TAGS = {
    "p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "pre",
    "code", "em", "strong", "s", "span", "a", "table", "thead", "tbody", "tr", "th", "td",
} | MATH_TAGS  # fmt: skip
PIECES = st.sampled_from(
    ["# ", "- ", "1. ", "> ", "```", "`", "*", "**", "_", "~~", "[", "](", ")", "![", "<", ">", "|",
     "|--|", "\n", "\n\n", "    ", "\\", "&lt;", "<b>", "$", "$$", "\\(", "\\)", "\\[", "\\]", "x^2", "http://a.b", "javascript:x", "word", "的"]  # noqa: E501
) | st.text(max_size=5)  # fmt: skip


def elements(nodes: list[Any]) -> list[dict[str, Any]]:
    found = []
    for node in nodes:
        if not isinstance(node, str):
            found += [node, *elements(node["children"])]
    return found


def words(nodes: list[Any]) -> str:
    return "".join(n if isinstance(n, str) else words(n["children"]) for n in nodes)


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=60).map("".join))
def test_any_text_becomes_known_elements_and_safe_links(text: str) -> None:
    nodes = parse(text)
    json.dumps(nodes)
    for element in elements(nodes):
        assert element["tag"] in TAGS
        assert element.get("href", "http://").startswith(("http://", "https://", "mailto:"))


def test_html_stays_text_and_pictures_become_links() -> None:
    text = "<script>alert(1)</script> ![a cat](http://evil.example/p.png) ![](https://b.example/q)"
    nodes = parse(text)
    assert words(nodes) == "<script>alert(1)</script> a cat https://b.example/q"
    assert [e["href"] for e in elements(nodes) if e["tag"] == "a"] == [
        "http://evil.example/p.png",
        "https://b.example/q",
    ]


@pytest.mark.parametrize("address", ["javascript:alert(1)", "data:text/html,x", "file:///a", "//a"])
def test_links_to_other_things_than_the_web_are_text(address: str) -> None:
    assert all(e["tag"] != "a" for e in elements(parse(f"[click]({address}) ![x]({address})")))


@pytest.mark.parametrize(
    ("text", "links"),
    [
        ("see https://a.example/b_c_d?x=1&y=(2), please", ["https://a.example/b_c_d?x=1&y=(2)"]),
        ("(see http://a.example/b.) And HTTPS://B.example!", ["http://a.example/b", "HTTPS://B.example"]),
        ("[1](https://a.example) and <https://b.example/>", ["https://a.example", "https://b.example/"]),
        ("[https://a.example](https://b.example) **https://c.example**", ["https://b.example", "https://c.example"]),
        ("`https://a.example` and\n\n    https://b.example", []),
        ("请看https://a.example/b。谢谢", ["https://a.example/b"]),
        ("| https://a.example/x |\n|--|\n| http://b.example |", ["https://a.example/x", "http://b.example"]),
        ("http:// and xhttp://a.example and ftp://b.example and //c.example", []),
        ("https://a.example/" + ")" * 15_000, ["https://a.example/"]),
    ],
)  # fmt: skip
def test_web_addresses_in_a_text_are_links(text: str, links: list[str]) -> None:
    nodes = parse(text)
    assert [e["href"] for e in elements(nodes) if e["tag"] == "a"] == links
    assert all(link in words(nodes) or "](" in text for link in links)
    assert words(nodes).count(")") == 15_000 or len(text) < 15_000


def test_tables_lists_and_code_keep_their_form() -> None:
    found = elements(parse("| a | b |\n|:-:|--:|\n| 1 | 2 |\n\n3. x\n4. y\n\n```python\nf()\n```"))
    assert [e["align"] for e in found if e["tag"] == "td"] == ["center", "right"]
    assert [e["start"] for e in found if e["tag"] == "ol"] == [3]
    [code] = [e for e in found if e["tag"] == "pre"]
    assert (code["language"], code["children"]) == ("python", ["f()\n"])


@pytest.mark.parametrize(
    "text", ["> " * 9000, "- " * 9000, "*a _b **c " * 1900, "[" * 19_000, "![" * 9000, "x" * 30_000]
)
def test_deep_and_long_texts_are_shown_too(text: str) -> None:
    assert words(parse(text)) or "-" in text or ">" in text


def test_the_page_asks_for_several_texts_at_once() -> None:
    with running() as server, client_of(server) as client:
        path = "/page/markdown"
        reply = client.post(path, json={"texts": ["a *b*", ""]})
        b = {"tag": "em", "children": ["b"]}
        assert reply.json() == {"texts": [[{"tag": "p", "children": ["a ", b]}], []]}
        for body in ({"texts": "a"}, {"texts": [1]}, {}, {"texts": [], "more": 1}):
            assert client.post(path, json=body).status_code == 400
        assert client.post(path, json={"texts": ["x" * (MOST_LETTERS + 1)]}).status_code == 413
        assert (
            client.post(path, content="{}", headers={"content-type": "text/plain"}).status_code
            == 415
        )


def outline(node: Any) -> str:
    """Return a node as text: «a formula», and the tags of other elements."""
    if isinstance(node, str):
        return node
    if node["tag"] == "math":
        return f"«{node['source']}»"
    return f"<{node['tag']}>{''.join(map(outline, node['children']))}</{node['tag']}>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"So \(a*b*c\), $_y x_$.", r"<p>So «\(a*b*c\)», <code>$_y x_$</code>.</p>"),
        ("$$\nx = 1\n- y\n= 3\n\n$$\nnext", "<p>«$$\nx = 1\n- y\n= 3\n\n$$»</p><p>next</p>"),
        ("text\n\\[ x \\].\n- a", "<p>text</p><p>«\\[ x \\]».</p><ul><li>a</li></ul>"),
        ("\\[ x \\] and\nmore", "<p>«\\[ x \\]» and<br></br>more</p>"),
        ("- a:\n  \\[\n  x\n  \\]\n- b", "<ul><li>a:<p>«\\[\nx\n\\]»</p></li><li>b</li></ul>"),
        ("> $$a\n> + b$$\n> c", "<blockquote><p>«$$a\n+ b$$»</p><p>c</p></blockquote>"),
        (
            "| a |\n|--|\n| $x^2$ |",
            "<table><thead><tr><th>a</th></tr></thead><tbody><tr><td>«$x^2$»</td></tr></tbody></table>",
        ),
        (r"# $x$ **\(y\)** [l $z$](http://a.b)", r"<h1>«$x$» <strong>«\(y\)»</strong> <a>l «$z$»</a></h1>"),  # noqa: E501
        ("`$x$`\n\n    \\(z\\)\n\n```\n$$x$$\n```", "<p><code>$x$</code></p><pre>\\(z\\)\n</pre><pre>$$x$$\n</pre>"),  # noqa: E501
        (r"$5 and $6, \$7, \(no end, \[see it\]", r"<p>$5 and $6, $7, \(no end, [see it]</p>"),
        (r"broken $\foo x$ and \(\frac{1}{", r"<p>broken <code>$\foo x$</code> and <code>\(\frac{1}{</code></p>"),  # noqa: E501
        ("\\[\nx = *a*\n\ntext", "<p><code>\\[\nx = *a*</code></p><p>text</p>"),
        (r"\begin{align} a &= b \\ c &= d \end{align}", r"<p>«\begin{align} a &= b \\ c &= d \end{align}»</p>"),  # noqa: E501
    ],
)  # fmt: skip
def test_formulas_are_not_read_as_markdown(text: str, expected: str) -> None:
    pytest.importorskip("latex2mathml")
    assert "".join(map(outline, parse(text))) == expected


@pytest.mark.parametrize(
    "text",
    ["$" * 10_000, r"\(" * 5000, r"\[x^" * 2500, "$$\n" * 2500, "${" * 5000, "$$x\n" * 2500,
     "\\begin{align}\n" * 700, "> $$\n" * 2000],
)  # fmt: skip
def test_malicious_formulas_take_no_long_time(text: str) -> None:
    began = time.process_time()
    parse(text)
    assert time.process_time() - began < 3
