"use strict";
// Builds elements. Text from the model is never parsed as HTML: the server returns its Markdown as a
// tree of these tags, and any other tag becomes a plain span.

const TAGS = new Set(["p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li",
  "blockquote", "pre", "code", "em", "strong", "s", "span", "a",
  "table", "thead", "tbody", "tr", "th", "td"]);
// MathML; the server sends only these (cogvlm2_lite/formulas.py), and they are checked once more.
const MATH = "http://www.w3.org/1998/Math/MathML";
const MATH_TAGS = new Set(["math", "mrow", "mi", "mn", "mo", "ms", "mtext", "mspace", "mfrac", "msqrt", "mroot",
  "mstyle", "mpadded", "mphantom", "menclose", "msub", "msup", "msubsup", "munder", "mover", "munderover",
  "mmultiscripts", "mprescripts", "mtable", "mtr", "mtd"]);
const MATH_ATTRIBUTES = new Set(["display", "mathvariant", "stretchy", "fence", "form", "separator", "accent",
  "accentunder", "displaystyle", "columnalign", "columnspacing", "notation", "width", "height", "depth", "lspace", "rspace",
  "voffset", "minsize", "maxsize", "linethickness", "mathsize", "scriptlevel"]);
const ALIGNS = new Set(["left", "center", "right"]);

export function make(name, kind, text) {
  const node = document.createElement(name);
  if (kind) node.className = kind;
  if (text !== undefined) node.textContent = text;
  return node;
}

export async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = make("textarea"); // browsers offer no clipboard to http pages of other machines
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

export function copyButton(words, text) {
  const button = make("button", "quiet", words.copy);
  button.type = "button";
  button.onclick = async () => {
    await copy(text());
    button.textContent = words.copied;
    setTimeout(() => { button.textContent = words.copy; }, 1500);
  };
  return button;
}

export function build(nodes, words) {
  return nodes.map((node) => typeof node === "string" ? node : element(node, words));
}

function math(node) {
  const made = document.createElementNS(MATH, MATH_TAGS.has(node.tag) ? node.tag : "mrow");
  for (const [name, value] of Object.entries(node.math)) if (MATH_ATTRIBUTES.has(name)) made.setAttribute(name, value);
  made.append(...node.children.map((child) => typeof child === "string" ? child : math(child)));
  return made;
}

// A formula scrolls if it is too wide. Its LaTeX is shown when the pointer is over it.
function formula(node) {
  const frame = make("span", node.math.display === "block" ? "formula block" : "formula");
  frame.title = node.source;
  frame.append(math(node));
  return frame;
}

function element(node, words) {
  if (node.math) return formula(node);
  const made = make(TAGS.has(node.tag) ? node.tag : "span");
  made.append(...build(node.children, words));
  if (node.tag === "a") return link(made, node.href);
  if (node.tag === "pre") return code(made, node, words);
  if (node.tag === "ol" && Number.isInteger(node.start)) made.start = node.start;
  if (ALIGNS.has(node.align)) made.style.textAlign = node.align;
  if (node.tag === "table") {
    const frame = make("div", "wide"); // a wide table scrolls, not the page
    frame.tabIndex = 0;
    frame.append(made);
    return frame;
  }
  return made;
}

function link(made, address) {
  if (!/^(https?:\/\/|mailto:)/i.test(address)) return made;
  made.href = address;
  made.target = "_blank";
  made.rel = "noopener noreferrer";
  // Show the target of a link if its text is different.
  if (made.textContent !== address) made.append(make("span", "address", ` (${address})`));
  return made;
}

function code(made, node, words) {
  const frame = make("div", "code");
  const head = make("div", "code-head");
  const text = node.children.join("");
  head.append(make("span", "", node.language || words.code), copyButton(words, () => text));
  made.tabIndex = 0;
  frame.append(head, made);
  return frame;
}
