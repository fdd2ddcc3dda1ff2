"use strict";
// Divides long answers: the server parses short texts only, because parsing can take the square of the length.

const MOST = 15000; // characters of a piece
const MOST_AT_ONCE = 30000; // characters of a request
const MOST_TEXTS = 500;

const FENCE = /^ {0,3}(`{3,}|~{3,})/;
const ITEM = /^([-*+]|\d{1,9}[.)]) /;
const RULE = /^[\s|:]*-[\s|:-]*$/; // below the head of a table

// Returns pieces of a Markdown text that can be parsed one by one. The text is divided between paragraphs, or
// else between items of a list, or else anywhere; code and tables then begin again in the next piece.
export function divide(text) {
  const pieces = [];
  let piece = "";
  let paragraph = 0; // the last place between paragraphs
  let item = 0; // the last place between items
  let code = null; // {head: the first line of a block of code, fence}
  let head = ""; // the first two lines of a table
  let before = "\n";
  for (const line of lines(text)) {
    const again = code ? code.head : head;
    while (piece.length + line.length > MOST && piece.length > again.length) {
      const end = paragraph || item;
      const closed = code ? `${piece}${piece.endsWith("\n") ? "" : "\n"}${code.fence}\n` : piece;
      pieces.push(end ? piece.slice(0, end) : closed);
      piece = end ? piece.slice(end) : again;
      paragraph = item = 0;
    }
    const [, fence] = FENCE.exec(line) || [];
    if (!code && before.trim() === "" && /^\S/.test(line) && !ITEM.test(line)) paragraph = piece.length;
    if (!code && ITEM.test(line)) item = piece.length;
    if (fence && !code) code = { head: line, fence };
    else if (code && fence && fence.startsWith(code.fence) && line.trim() === fence) code = null;
    if (!code && RULE.test(line) && line.includes("|") && before.includes("|")) head = before + line;
    if (!line.includes("|")) head = "";
    piece += line;
    before = line;
  }
  return piece ? [...pieces, piece] : pieces;
}

// Returns the lines of a text with their ends; a line that is too long is divided between words.
function lines(text) {
  return text.split(/(?<=\n)/).flatMap((line) => {
    const parts = [];
    while (line.length > MOST) {
      const end = line.lastIndexOf(" ", MOST) + 1 || MOST;
      parts.push(line.slice(0, end));
      line = line.slice(end);
    }
    return [...parts, line];
  });
}

// Returns a tree of elements for each text, or null if one could not be parsed. parse: does it for a few texts.
export async function parseAll(texts, parse) {
  const pieces = texts.map(divide);
  const waiting = pieces.flat();
  const trees = [];
  while (trees.length < waiting.length) {
    const begin = trees.length;
    let end = begin + 1;
    let length = waiting[begin].length;
    while (end < waiting.length && end - begin < MOST_TEXTS && (length += waiting[end].length) <= MOST_AT_ONCE) end += 1;
    const found = await parse(waiting.slice(begin, end));
    if (!found) return null;
    trees.push(...found);
  }
  return pieces.map((part) => trees.splice(0, part.length).flat());
}
