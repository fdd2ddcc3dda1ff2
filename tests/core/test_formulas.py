"""Formulas in texts: which dollar signs are prices, and what LaTeX becomes in MathML."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cogvlm2_lite.formulas import ATTRIBUTES, TAGS, Formula, MathElement, formula_at, to_mathml

pytest.importorskip("latex2mathml")


def found(text: str) -> list[str]:
    """Return the sources of all formulas of a text."""
    sources, at = [], 0
    while at < len(text):
        formula = formula_at(text, at)
        if formula:
            sources.append(formula.source)
        at += len(formula.source) if formula else 1
    return sources


@pytest.mark.parametrize(
    "text",
    [
        "It costs $5 and $6, or $7-$8, $9/$10, US$9, 5$ and 6$.", "from $20, to $30", "$5–$10",
        "The price is $20. The tax is $3. The total is $23.", "A: $5\nB: $6\nC: 7$",
        "$1,000 (about 900€) vs. 800$", "Paid $5 (x$) now", "$5 per kg, $6 per piece$",
        "价格$5和$6", "价格是5$和6$", "这个$5，那个6$。", "$HOME/$USER and ${HOME}", "$ x $", "$$", "$", "$x",  # noqa: E501
        "Cheap ($), moderate ($$), expensive ($$$)", "$50/month, $60/year", "**$5**–**$6**",
        r"\[citation needed\] \(see above\)", r"Use \( and \) here", "$100 million and 200 million$",  # noqa: E501
        "I have $10 in cash and you owe me $.", "$5 `a$`", r"\(", r"\[", "$$ cheap and good $$",
    ],
)  # fmt: skip
def test_prices_and_prose_are_no_formulas(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize(
    ("text", "sources"),
    [
        (r"so \(x^2\), \[ y \] and", [r"\(x^2\)", r"\[ y \]"]),
        ("where $x$ is, $a_1*b*c$.", ["$x$", "$a_1*b*c$"]),
        ("$x$和$y$，价格$5", ["$x$", "$y$"]),
        ("the $n$th of 2$x$, a $x$-axis", ["$n$", "$x$", "$x$"]),
        (r"$5 \times 3 = 15$ and $5", [r"$5 \times 3 = 15$"]),
        (r"$3:4$, $(1, 2)$, $-5$, $|x|$, $[0, 1)$", ["$3:4$", "$(1, 2)$", "$-5$", "$|x|$", "$[0, 1)$"]),  # noqa: E501
        (r"a $\$5$ b, $\text{if $x$}$", [r"$\$5$", r"$\text{if $x$}$"]),
        ("$$\nx = 1\n$$ and $$y$$", ["$$\nx = 1\n$$", "$$y$$"]),
        (r"\begin{align} a &= b \\[2pt] c \end{align}", [r"\begin{align} a &= b \\[2pt] c \end{align}"]),  # noqa: E501
        (r"\[ a \\[2pt] b \]", [r"\[ a \\[2pt] b \]"]),
        (r"\(\text{speed of light} = c\)", [r"\(\text{speed of light} = c\)"]),
        (r"\(面积 = 长 \times 宽\)", [r"\(面积 = 长 \times 宽\)"]),
    ],
)  # fmt: skip
def test_formulas_are_found(text: str, sources: list[str]) -> None:
    assert found(text) == sources


@pytest.mark.parametrize("text", [r"\(\frac{1}{", "\\[\nx = 1", "$$x^2", r"\begin{align} a"])
def test_the_beginning_of_a_formula_is_one_without_an_end(text: str) -> None:
    formula = formula_at(text, 0)
    assert formula
    assert (formula.source, formula.closed) == (text, False)
    assert to_mathml(formula) is None


def shown(latex: str, *, display: bool = False) -> str:
    """Return MathML as text, tags without attributes; "" if there is none."""
    formula = Formula(source=latex, latex=latex, display=display)
    element = to_mathml(formula)
    return (
        "" if element is None else text_of(element).removeprefix("<math>").removesuffix("</math>")
    )


def text_of(element: MathElement) -> str:
    inner = "".join(one if isinstance(one, str) else text_of(one) for one in element.children)
    return f"<{element.tag}>{inner}</{element.tag}>"


@pytest.mark.parametrize(
    ("latex", "mathml"),
    [
        ("x^2", "<mrow><msup><mi>x</mi><mn>2</mn></msup></mrow>"),
        (r"\frac12", "<mrow><mfrac><mn>1</mn><mn>2</mn></mfrac></mrow>"),
        (r"\mathbb{R} \sim <", "<mrow><mi>ℝ</mi><mi>∼</mi><mo><</mo></mrow>"),
        (r"a \\ b", "<mrow><mtable><mtr><mtd><mi>a</mi></mtd></mtr><mtr><mtd><mi>b</mi></mtd></mtr></mtable></mrow>"),  # noqa: E501
    ],
)  # fmt: skip
def test_latex_becomes_mathml(latex: str, mathml: str) -> None:
    assert shown(latex) == mathml


@pytest.mark.parametrize("name", ["align", "align*", "aligned", "split", "eqnarray", "alignat"])
def test_lines_are_aligned_without_numbers(name: str) -> None:
    argument = "{2}" if name == "alignat" else ""
    latex = (
        rf"\begin{{{name}}}{argument} a &= b \\[4pt] c &= d \nonumber \label{{x}} \end{{{name}}}"
    )
    text = shown(latex, display=True)
    assert text.count("<mtr>") == 2
    assert "&" not in text
    assert "(1)" not in text
    assert "pt" not in text


def test_limits_are_below_where_there_is_room() -> None:
    assert shown(r"\lim_{x \to 0} x", display=True).startswith("<mrow><munder>")
    assert shown(r"\lim_{x \to 0} x").startswith("<mrow><msub>")


@pytest.mark.parametrize(
    "latex",
    [r"\frac{1}{2", r"\frac{a}{", "x^", r"\foo{x}", r"\begin{foo}x\end{foo}", "x_1_2", r"\left( x", "}{", "",  # noqa: E501
     r"\ce{H2O}", "a & b", "x^{" * 300 + "}" * 300, "{" * 2000 + "}" * 2000, "x" * 5000, r"\begin{align} a",  # noqa: E501
     r"\newcommand{\a}{b}"],
)  # fmt: skip
def test_what_can_not_be_shown_has_no_mathml(latex: str) -> None:
    assert shown(latex) == ""


LATEX = st.lists(
    st.sampled_from(
        ["x", "2", "^", "_", "{", "}", r"\frac", r"\sqrt", r"\left(", r"\right)", "&", r"\\", r"\text{a}",  # noqa: E501
         r"\begin{matrix}", r"\end{matrix}", r"\href{javascript:x}", r"\style{a:b}", r"\color{red}", r"\class{x}",  # noqa: E501
         r"\hspace{9999em}", r"\sum", "<script>", "'", "%", "的", r"\bbox[red]{x}", r"\rule{1em}{2em}", r"\mathbf{x}"]  # noqa: E501
    ),
    max_size=14,
).map("".join)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(LATEX)
def test_any_latex_becomes_known_elements_or_none(latex: str) -> None:
    waiting = [to_mathml(Formula(source=latex, latex=latex, display=True))]
    for element in waiting:
        if element is None:
            continue
        assert element.tag in TAGS
        for name, value in element.attributes.items():
            assert (name, value) == ("display", "block") or ATTRIBUTES[name].fullmatch(value)
        waiting += [child for child in element.children if not isinstance(child, str)]


def test_without_the_package_the_source_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "latex2mathml.converter", None)
    assert shown("x + 12345") == ""
