"use strict";
// The chat page. It uses no library and no build step. The API key is kept until the tab is closed.

import { takePicture } from "./camera.js";
import { addTurn, addVersion, choose, chooseQuestion, editTurn, merge, newConversation, newId, path, pictureTurn,
  questions, shown } from "./conversation.js";
import { build, copyButton, make } from "./elements.js";
import { announce, find, inquire, load, loadPicture, onNews, openHistory, remove, save } from "./history.js";
import { parseAll } from "./markdown.js";
import { drawMemory, readMetrics } from "./memory.js";
import { openSettings, readSettings, sampling, showSettings } from "./settings.js";
import { sentence, TEXT } from "./words.js";

const MAX_PICTURE = 96 * 1024 * 1024;
// Browsers know no type for some of these, and show not all of them.
const SUFFIXES = { heic: "heic", heif: "heif", hif: "heif", avif: "avif", avifs: "avif", tif: "tiff", tiff: "tiff",
  jfif: "jpeg", jpe: "jpeg", mpo: "jpeg", dib: "bmp", apng: "apng" };
const WITH_PAGES = /^data:image\/(tiff|gif)/; // others rarely have several
const at = (id) => document.getElementById(id);
let language = localStorage.getItem("language")
  || (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");
let words = TEXT[language];
let conversation = newConversation(); // the one that is shown; conversation.js has its fields
let opening = 0; // counts the conversations that were opened: a slow load must not replace a later choice
const views = new Map(); // the id of each turn that is shown: its elements
const jobs = new Map(); // the id of a conversation: its answer in progress, also if it is not shown
const elsewhere = new Set(); // the ids of answers that another tab receives
const unsaved = new Map(); // the id of each picture that is not stored yet: {id, url, refused by the browser}
const previews = new Map(); // the address of a picture and its page: a promise of its preview from the server
let picture = null; // {url: a data: URL, name, page: 0 if none was chosen}, for the next question
let reading = null; // a promise while a picture file is read
let plan = null; // from /v1/plan
let models = []; // the names in /v1/models; the first one is the base model, and the others have an adapter
let phase = "decode"; // the phase in the memory bar
let heldBytes = 0; // as last reported by the engine
const RENDER_MS = 300; // minimum time between two renderings of a growing answer
const SAVE_MS = 1000; // time between two saves of a growing answer
const MOST_ROWS = 200; // of the list of conversations, until the button for all of them is used
let allRows = false;
let editing = readEditing(); // {id of the turn, text}: the question that is being changed, or null
let keyAsked = null; // a promise while the dialog for the key is open

// --- history -----------------------------------------------------------------------------------

function listConversations() {
  const { total, found } = find(at("search").value);
  at("search").hidden = total < 2 && !at("search").value; // its words hide conversations
  const rows = (allRows ? found : found.slice(0, MOST_ROWS)).map(listRow);
  if (total && !found.length) rows.push(make("li", "none", words.nothing));
  if (found.length > rows.length) {
    const more = make("button", "quiet", words.showAll(found.length));
    more.onclick = () => { allRows = true; listConversations(); };
    rows.push(make("li"));
    rows.at(-1).append(more);
  }
  at("conversations").replaceChildren(...rows);
}

function listRow(one) {
  const row = make("li", one.id === conversation.id ? "open" : "");
  row.classList.toggle("busy", jobs.has(one.id));
  const name = make("button", "quiet name", one.name);
  name.onclick = () => { open(one.id); closeMenu(); };
  const away = make("button", "quiet", "×");
  away.setAttribute("aria-label", `${words.delete}: ${one.name}`);
  away.onclick = async () => {
    if (!await confirmed(words.sure(one.name), words.delete)) return;
    await remove(one.id);
    forget(one.id);
  };
  row.append(name);
  if (one.id === conversation.id) row.append(...openRowButtons());
  row.append(away);
  return row;
}

function openRowButtons() {
  return [["rename", "✎", rename], ["export", "↓", exportConversation]].map(([word, sign, work]) => {
    const button = make("button", `quiet ${word}`, sign);
    button.title = words[word];
    button.setAttribute("aria-label", words[word]);
    button.onclick = () => work(conversation);
    return button;
  });
}

// Shows a question with the button for "yes", and a field if a text is given. Returns whether it was used.
function confirmed(question, yes, text) {
  at("sure-text").textContent = question;
  at("sure-ok").textContent = yes;
  at("sure-field").hidden = text === undefined;
  at("sure-field").value = text || "";
  at("sure-dialog").returnValue = "";
  at("sure-dialog").showModal();
  if (text !== undefined) at("sure-field").select();
  return new Promise((done) => {
    at("sure-dialog").onclose = () => done(at("sure-dialog").returnValue === "ok");
  });
}

async function rename(mine) {
  if (!await confirmed(words.rename, words.save, mine.name)) return;
  const name = at("sure-field").value.trim().slice(0, 200);
  if (!name) return;
  Object.assign(mine, { name, namedAt: Math.max(Date.now(), mine.namedAt + 1) });
  await store(mine);
  listConversations();
}

// Saves the conversation, as it is shown, as a Markdown file with its pictures in it.
async function exportConversation(mine) {
  const parts = [`# ${mine.name}`];
  const pictures = [];
  for (const turn of path(mine)) {
    const url = turn.picture && await pictureUrl(turn.picture.id);
    if (url) parts.push(`![][picture ${pictures.push(url)}]`);
    parts.push(turn.question.replace(/^/gm, "> "), shown(turn).answer.trim());
  }
  parts.push(...pictures.map((url, index) => `[picture ${index + 1}]: ${url}`));
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([`${parts.filter(Boolean).join("\n\n")}\n`], { type: "text/markdown" }));
  link.download = `${mine.name.replace(/[^\p{L}\p{N}]+/gu, " ").trim().slice(0, 60) || "CogVLM2 Lite"}.md`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

// Saves a conversation: before a request, so that a crash loses no question, and while an answer grows.
async function store(mine) {
  const job = jobs.get(mine.id);
  if (job) {
    job.savedLength = job.version.answer.length;
    job.savedAt = performance.now();
    job.version.revision += 1;
  }
  const running = job && job.version.id;
  const added = mine.turns.map(({ picture: one }) => one && unsaved.get(one.id)).filter((one) => one && !one.refused);
  let state = await save(mine, added, running);
  if (state === "saved") for (const { id } of added) unsaved.delete(id);
  if (state === "full" && added.length) { // at least the words, if the pictures are too large
    for (const one of added) one.refused = true;
    state = await save(mine, [], running);
    showMessage(words.notStored);
  }
  if (state === "full" || state === "closed") showMessage(words.notStored);
  if (state === "deleted") forget(mine.id); else if (mine === conversation) refresh();
}

// Stops and hides a conversation that was deleted, here or in another tab.
function forget(id) {
  const job = jobs.get(id);
  if (job) job.stop.abort();
  if (conversation.id === id) fresh(); else listConversations();
}

async function readNews({ changed, running, ended, removed, asked }) {
  if (asked && jobs.has(asked)) announce(asked, { running: jobs.get(asked).version.id });
  if (removed) forget(removed);
  if (!changed) return;
  listConversations();
  if (changed !== conversation.id) return;
  const mine = conversation;
  const kept = await load(changed);
  if (running) elsewhere.add(running);
  if (ended) elsewhere.delete(ended);
  if (kept) merge(mine, kept);
  if (mine === conversation) refresh();
}

// --- display -----------------------------------------------------------------------------------

function translate() {
  words = TEXT[language];
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const [id, text] of [["language", words.other], ["new", words.new], ["welcome", words.welcome],
    ["hint", words.hint], ["page-label", words.page], ["key-label", words.key], ["camera-take", words.take],
    ["camera-cancel", words.cancel], ["sure-cancel", words.cancel], ["settings-title", words.settings],
    ["tokens-label", words.maxTokens], ["temperature-label", words.temperature], ["top-p-label", words.topP],
    ["seed-label", words.seed], ["system-label", words.system], ["settings-kept", words.settingsKept],
    ["settings-reset", words.reset], ["settings-cancel", words.cancel], ["settings-ok", words.save],
    ["key-ok", words.ok], ["key-cancel", words.cancel], ["send", jobs.has(conversation.id) ? words.stop : words.send]]) {
    at(id).textContent = text;
  }
  at("question").placeholder = words.placeholder;
  at("question").setAttribute("aria-label", words.placeholder);
  at("search").placeholder = words.search;
  at("model").setAttribute("aria-label", words.model);
  for (const [id, text] of [["tokens", words.defaultTokens], ["temperature", words.defaultTemperature],
    ["top-p", words.defaultTopP], ["seed", words.defaultSeed], ["system", words.defaultSystem]]) {
    at(`set-${id}`).placeholder = text;
  }
  at("side").setAttribute("aria-label", words.menu);
  showSettings(at, words);
  for (const [id, text] of [["pick", words.pick], ["camera", words.camera],
    ["drop-picture", words.remove], ["page", words.page], ["menu", words.menu], ["search", words.search]]) {
    at(id).setAttribute("aria-label", text);
    at(id).title = text;
  }
  showMemory();
}

function showMemory() { drawMemory(at, plan, phase, heldBytes, words); }

function showMessage(text) { at("message").textContent = text; }

function closeMenu() {
  at("side").classList.remove("open");
  at("menu").setAttribute("aria-expanded", "false");
}

function drawTurn(turn) {
  const row = make("li");
  const asked = make("div", "asked");
  if (turn.picture) asked.append(drawPicture(turn.picture));
  const own = editing && editing.id === turn.id;
  asked.append(own ? editor(turn) : turn.question);
  const said = make("div", "said");
  const rendered = make("div");
  const version = shown(turn);
  const tail = make("span", "tail", version.answer);
  said.append(rendered, tail);
  const note = make("div", "note");
  const questionNote = make("div", "question-note");
  row.append(asked, questionNote, said, note);
  at("turns").append(row);
  const drawn = { row, questionNote, rendered, tail, note, version, shown: 0, asking: false, pause: RENDER_MS };
  views.set(turn.id, drawn);
  return drawn;
}

// Shows the button that changes a question, and those that show the other forms of it.
function drawQuestionNote(turn, row) {
  row.replaceChildren();
  if (jobs.has(conversation.id) || (editing && editing.id === turn.id)) return;
  const all = questions(conversation, turn);
  const place = all.indexOf(turn);
  const add = (kind, sign, label, work) => {
    const button = make("button", `quiet ${kind}`, sign);
    button.type = "button";
    button.title = label;
    button.setAttribute("aria-label", label);
    button.onclick = work;
    row.append(button);
    return button;
  };
  const turnTo = (next) => async () => {
    chooseQuestion(conversation, all[next]);
    draw();
    await store(conversation);
  };
  if (all.length > 1) {
    add("older-question", "‹", words.olderQuestion, turnTo(place - 1)).disabled = !place;
    row.append(`${place + 1}/${all.length}`);
    add("newer-question", "›", words.newerQuestion, turnTo(place + 1)).disabled = place === all.length - 1;
  }
  add("edit", "✎", words.edit, () => { edit({ id: turn.id, text: turn.question }); });
}

function readEditing() {
  try { return JSON.parse(sessionStorage.getItem("editing")); } catch { return null; }
}

// Starts to change a question, or ends it with null. What is typed survives a reload.
function edit(what) {
  editing = what;
  sessionStorage.setItem("editing", JSON.stringify(what));
  draw();
  const field = document.querySelector(".editor textarea");
  if (what && field) field.focus(); else at("question").focus();
}

function editor(turn) {
  const form = make("form", "editor");
  const field = make("textarea");
  field.value = editing.text;
  field.rows = Math.min(10, Math.max(2, editing.text.split("\n").length, Math.ceil(editing.text.length / 40)));
  field.setAttribute("aria-label", words.edit);
  field.oninput = () => {
    editing.text = field.value;
    sessionStorage.setItem("editing", JSON.stringify(editing));
  };
  field.onkeydown = (event) => {
    if (event.key === "Escape") { event.stopPropagation(); edit(null); }
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  };
  const cancel = make("button", "quiet cancel", words.cancel);
  cancel.type = "button";
  cancel.onclick = () => edit(null);
  const send = make("button", "", words.send);
  const buttons = make("div", "buttons");
  buttons.append(cancel, send);
  form.append(field, buttons);
  form.onsubmit = (event) => {
    event.preventDefault();
    const question = field.value.trim();
    if (!question || jobs.has(conversation.id)) return field.focus();
    edit(null);
    if (question !== turn.question) answer(conversation, editTurn(conversation, turn, question));
  };
  return form;
}

// Returns the address of a preview of a picture that this browser can't show, or "". report: gets the trouble.
function preview(url, page, report = () => {}) {
  const name = `${page} ${url}`;
  if (!previews.has(name)) previews.set(name, makePreview(url, page));
  return previews.get(name).then((made) => {
    if (made.trouble) { previews.delete(name); report(made.trouble); }
    return made.address || "";
  });
}

async function makePreview(picture, page) {
  try {
    const body = JSON.stringify({ picture, ...(page ? { page } : {}) });
    const reply = await fetch("/page/preview", { method: "POST", headers: headers(), body });
    if (reply.ok) return { address: URL.createObjectURL(await reply.blob()) };
    if (reply.status !== 400) return { trouble: " " };
    const { error } = await reply.json();
    return { trouble: sentence(language, error.message, error) };
  } catch {
    return { trouble: " " }; // the name is shown instead
  }
}

function drawPicture({ id, name, page }) {
  const image = make("img");
  image.alt = words.enlarge;
  image.title = words.enlarge;
  image.tabIndex = 0;
  image.setAttribute("role", "button");
  const enlarge = () => {
    at("picture-large").src = image.src;
    at("picture-dialog").showModal();
  };
  image.onclick = enlarge;
  image.onkeydown = (event) => { if (event.key === "Enter") enlarge(); };
  const failed = () => image.replaceWith(make("div", "file", name || words.noPreview));
  pictureUrl(id).then((url) => {
    if (!url) return failed();
    image.onerror = async () => {
      image.onerror = failed;
      const address = await preview(url, page);
      if (address) image.src = address; else failed();
    };
    image.src = url;
  });
  return image;
}

async function pictureUrl(id) { return unsaved.has(id) ? unsaved.get(id).url : loadPicture(id); }

// Returns a tree of elements for each text, or null if the server returns an error.
const markdown = (texts) => parseAll(texts, parse);

async function parse(texts) {
  try {
    const body = JSON.stringify({ texts });
    const reply = await fetch("/page/markdown", { method: "POST", headers: headers(), body });
    return reply.ok ? (await reply.json()).texts : null;
  } catch {
    return null; // the answer is then shown as plain text
  }
}

function place(drawn, nodes, answer, length) {
  const low = atEnd();
  drawn.rendered.replaceChildren(...build(nodes, words));
  drawn.shown = length;
  drawn.tail.textContent = answer.slice(length);
  if (low) at("turns").scrollTop = at("turns").scrollHeight;
}

// Shows a growing answer: Markdown up to the last rendering, then plain text.
async function grown(drawn) {
  drawn.tail.textContent = drawn.version.answer.slice(drawn.shown);
  if (drawn.asking) return;
  drawn.asking = true;
  await new Promise((done) => setTimeout(done, drawn.pause));
  const began = performance.now();
  await settle(drawn);
  drawn.pause = Math.max(RENDER_MS, 5 * (performance.now() - began)); // render long answers less often
  drawn.asking = false;
}

async function settle(drawn) {
  const answer = drawn.version.answer;
  if (answer.length === drawn.shown) return; // rendering again would reset what the user selected
  const found = await markdown([answer]);
  if (found && answer.length >= drawn.shown) place(drawn, found[0], drawn.version.answer, answer.length);
}

// Renders the answers of an opened conversation, a few at a time.
async function settleAll(all) {
  for (let begin = 0; begin < all.length;) {
    let end = begin + 1;
    let characters = all[begin].version.answer.length;
    while (end < all.length && (characters += all[end].version.answer.length) < 30000) end += 1;
    const group = all.slice(begin, end);
    const texts = group.map((drawn) => drawn.version.answer);
    const found = await markdown(texts);
    group.forEach((drawn, index) => {
      const length = texts[index].length;
      if (found && length > drawn.shown) place(drawn, found[index], drawn.version.answer, length);
    });
    begin = end;
  }
}

// Returns the text of a stored note in the language of the page. Older ones were stored as their text.
function noteText(note) {
  if (typeof note === "string") return note;
  return note.map(({ word, values, text, made }) => {
    if (!word) return sentence(language, text, made);
    const found = words[word];
    return typeof found === "function" ? found(...values) : found;
  }).join(" ");
}

// Returns a text that changes when the note of an answer must be drawn again.
function noteState(turn, version) {
  const job = jobs.get(conversation.id);
  return `${version.done} ${noteText(version.note)} ${elsewhere.has(version.id)} ${turn.versions.length} ${Boolean(job)} ${questions(conversation, turn).length}`;
}

// Shows the note below an answer and its buttons.
function drawNote(turn, drawn) {
  const { version, note } = drawn;
  drawn.state = noteState(turn, version);
  drawQuestionNote(turn, drawn.questionNote);
  const job = jobs.get(conversation.id);
  const here = Boolean(job) && job.version === version;
  const stopped = elsewhere.has(version.id) ? words.elsewhere : words.reload;
  note.textContent = here ? job.note : version.done ? noteText(version.note) : stopped;
  note.classList.toggle("bad", version.bad);
  if (here) return;
  const add = (kind, text, work) => {
    const button = make("button", `quiet ${kind}`, text);
    button.type = "button";
    button.onclick = work;
    note.append(" ", button);
    return button;
  };
  if (version.answer) note.append(" ", copyButton(words, () => version.answer));
  if (version.pages > 1) add("other-page", words.otherPage, () => choosePage(turn, version));
  if (turn === path(conversation).at(-1) && !job && (version.done || !elsewhere.has(version.id))) {
    if (version.answer.trim() && (version.cut || !version.done)) {
      add("continue", words.continue, () => answer(conversation, turn, version));
    }
    add("again", words.again, () => answer(conversation, turn));
  }
  const count = turn.versions.length;
  if (count < 2 || job) return;
  const place = turn.versions.indexOf(version);
  const turnTo = (next) => async () => {
    choose(turn, turn.versions[next]);
    draw();
    await store(conversation);
  };
  const older = add("older", "‹", turnTo(place - 1));
  note.append(` ${place + 1}/${count} `);
  const newer = add("newer", "›", turnTo(place + 1));
  older.setAttribute("aria-label", words.older);
  newer.setAttribute("aria-label", words.newerAnswer);
  older.disabled = !place;
  newer.disabled = place === count - 1;
}

function atEnd() {
  const list = at("turns");
  return list.scrollHeight - list.scrollTop - list.clientHeight < 60;
}

function draw() {
  const list = at("turns");
  const top = atEnd() ? Infinity : list.scrollTop;
  views.clear();
  list.replaceChildren();
  for (const turn of path(conversation)) drawNote(turn, drawTurn(turn));
  settleAll([...views.values()].filter((drawn) => drawn.version.answer));
  list.scrollTop = Math.min(top, list.scrollHeight);
  at("send").textContent = jobs.has(conversation.id) ? words.stop : words.send;
  listConversations();
}

// Shows what has changed: an answer that grew in another tab, or what it added.
function refresh() {
  const turns = path(conversation);
  const drawn = turns.map((turn) => views.get(turn.id));
  const same = turns.every((turn, index) => drawn[index] && drawn[index].version === shown(turn));
  if (!same || drawn.length !== views.size) return draw();
  turns.forEach((turn, index) => {
    const { version, tail, shown: length, state } = drawn[index];
    if (version.answer.length !== length + tail.textContent.length) grown(drawn[index]);
    // Drawing a note again takes the focus of its buttons.
    if (state !== noteState(turn, version)) drawNote(turn, drawn[index]);
  });
}

// Keeps which conversation a reload, or the next tab, shows.
function remember() {
  for (const kept of [sessionStorage, localStorage]) kept.setItem("open", String(conversation.id));
}

function show(one) {
  opening += 1;
  conversation = one;
  choosePicture(null);
  draw();
  at("turns").scrollTop = at("turns").scrollHeight;
  remember();
  const unfinished = conversation.turns.some((turn) => turn.versions.some((version) => !version.done));
  if (unfinished && !jobs.has(conversation.id)) inquire(conversation.id);
}

// Opens a stored conversation; one whose answer is in progress is the object that the answer is added to.
async function open(id) {
  if (id === conversation.id) return;
  opening += 1;
  const mine = opening;
  const one = jobs.has(id) ? jobs.get(id).mine : await load(id);
  if (mine !== opening) return;
  if (one) show(one); else listConversations();
}

function fresh() {
  show(newConversation());
  closeMenu();
  at("question").focus();
}

// --- pictures ----------------------------------------------------------------------------------

function choosePicture(chosen) {
  picture = chosen;
  at("preview").hidden = !chosen;
  at("page-field").hidden = !chosen || !(chosen.page || WITH_PAGES.test(chosen.url));
  at("page").value = chosen && chosen.page ? chosen.page : "";
  at("thumb").hidden = false;
  at("thumb-name").textContent = "";
  if (chosen) at("thumb").src = chosen.url; else at("thumb").removeAttribute("src");
}

// Starts a conversation about the next page of the picture; the model takes one page at a time.
async function choosePage(turn, version) {
  const { picture: { id, name } } = pictureTurn(conversation);
  const url = await pictureUrl(id);
  if (!url) return showMessage(words.lostPicture);
  fresh();
  choosePicture({ url, name, page: version.page < version.pages ? version.page + 1 : 1 });
  at("question").value = at("question").value || turn.question; // what was typed stays
  grow();
}

function takeFile(file) {
  showMessage("");
  const kind = file.type || `image/${SUFFIXES[file.name.split(".").at(-1).toLowerCase()] || ""}`;
  if (!/^image\/./.test(kind)) return showMessage(words.notPicture);
  if (file.size === 0) return showMessage(words.emptyFile);
  if (file.size > MAX_PICTURE) return showMessage(words.large);
  const reader = new FileReader();
  const mine = new Promise((done) => { reader.onloadend = done; });
  reading = mine;
  mine.then(() => { if (reading === mine) reading = null; });
  reader.onload = () => {
    if (pictureTurn(conversation)) fresh(); // the model takes one picture per conversation
    choosePicture({ url: reader.result, name: file.name, page: 0 });
    at("question").focus();
  };
  reader.onerror = () => showMessage(words.unreadable);
  reader.readAsDataURL(file.slice(0, file.size, kind));
}

// --- the answer --------------------------------------------------------------------------------

function headers() {
  const key = sessionStorage.getItem("key");
  return { "content-type": "application/json", ...(key ? { authorization: `Bearer ${key}` } : {}) };
}

// Returns whether a key was entered. Answers that wait for a key share one dialog.
function askForKey(wrong) {
  at("key-label").textContent = wrong ? words.wrongKey : words.key;
  keyAsked = keyAsked || new Promise((done) => {
    at("key-dialog").returnValue = "";
    at("key-dialog").onclose = () => {
      keyAsked = null;
      const entered = at("key-dialog").returnValue === "ok" && at("key").value.trim();
      if (entered) sessionStorage.setItem("key", entered);
      done(Boolean(entered));
    };
    at("key-dialog").showModal();
    at("key").select();
  });
  return keyAsked;
}

// Returns the messages of a conversation up to the question of a turn, and the beginning of its answer.
async function messages(mine, last, begun) {
  const { system } = readSettings();
  const list = system ? [{ role: "system", content: system }] : [];
  for (const turn of path(mine)) {
    const content = [{ type: "text", text: turn.question }];
    if (turn.picture) {
      const url = await pictureUrl(turn.picture.id);
      if (!url) throw new NoteError(ours("lostPicture"));
      const image = { type: "image_url", image_url: { url } };
      if (turn.picture.page) image.page = turn.picture.page;
      content.unshift(image);
    }
    list.push({ role: "user", content });
    if (turn === last) return begun ? [...list, { role: "assistant", content: begun }] : list;
    list.push({ role: "assistant", content: shown(turn).answer });
  }
  return list;
}

// An answer's note is a list of sentences, so that it can be shown in another language later:
// {word, values} of words.js, or {text, made} of the server.
const ours = (word, ...values) => ({ word, values });
const theirs = (text, made) => ({ text, made: made && { template: made.template, values: made.values } });

class NoteError extends Error {
  constructor(entry) {
    super();
    this.note = [entry];
  }
}

const serverError = (error) => new NoteError(theirs(error.message, error));

async function* events(body) {
  // Server-sent events: lines "data: ..." between empty lines.
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    const pieces = held.split("\n\n");
    held = pieces.pop();
    for (const piece of pieces) {
      if (piece === "data: [DONE]") return;
      if (piece.startsWith("data: ")) yield JSON.parse(piece.slice(6));
    }
  }
}

async function ask(question) {
  await reading; // a large picture that was chosen just before
  let asked;
  if (picture) {
    asked = { id: newId(), name: picture.name, page: Number(at("page").value) || 0 };
    unsaved.set(asked.id, { id: asked.id, url: picture.url });
    choosePicture(null);
  }
  await answer(conversation, addTurn(conversation, question, asked));
}

// Adds an answer to a turn, or continues one. It goes on if another conversation is opened.
async function answer(mine, turn, cut) {
  if (jobs.has(mine.id)) return;
  const version = cut || addVersion(turn);
  Object.assign(version, { answer: version.answer.trimEnd(), bad: false, cut: true, done: false });
  const job = { mine, turn, version, stop: new AbortController(), note: words.waiting, savedLength: 0, savedAt: 0 };
  jobs.set(mine.id, job);
  draw();
  at("turns").scrollTop = at("turns").scrollHeight;
  await store(mine);
  listConversations();
  const timer = setInterval(() => { if (version.answer.length !== job.savedLength) store(mine); }, SAVE_MS);
  try {
    version.note = await receive(job);
  } catch (error) {
    version.bad = error.name !== "AbortError";
    const lost = error instanceof TypeError; // fetch raises it if the connection fails
    version.note = error.note || (version.bad && !lost ? error.message : [ours(lost ? "broken" : "stopped")]);
  }
  clearInterval(timer);
  version.done = true;
  version.revision += 1;
  jobs.delete(mine.id);
  phase = "decode";
  showMemory();
  listConversations();
  if (mine === conversation) at("send").textContent = words.send;
  await store(mine);
  const drawn = view(job);
  if (!drawn) return;
  await settle(drawn);
  // Screen readers read the complete answer once, and not each part of it.
  at("spoken").textContent = `${drawn.rendered.textContent}${drawn.tail.textContent} ${noteText(version.note)}`;
}

// Returns the elements of an answer in progress, or undefined if it is not shown.
function view({ mine, turn, version }) {
  const drawn = mine === conversation ? views.get(turn.id) : undefined;
  return drawn && drawn.version === version ? drawn : undefined;
}

function showProgress(job, text) {
  job.note = text;
  const drawn = view(job);
  if (drawn) drawn.note.textContent = text;
}

async function receive(job) {
  const { mine, turn, version, stop: { signal } } = job;
  if (!models.includes(version.model) || !version.answer) version.model = model();
  const body = JSON.stringify({
    messages: await messages(mine, turn, version.answer), stream: true, truncation: "auto",
    ...(version.answer ? { continue_final_message: true } : {}), ...sampling(readSettings()),
    ...(version.model ? { model: version.model } : {}),
    stream_options: { include_usage: true, include_progress: true },
  });
  const began = performance.now();
  const sent = headers();
  const reply = await fetch("/v1/chat/completions", { method: "POST", headers: sent, body, signal });
  if (reply.status === 401) {
    const changed = sent.authorization !== headers().authorization; // by the dialog of another answer
    if (changed || await askForKey(Boolean(sent.authorization))) {
      draw(); // earlier answers and pictures needed the key, too
      return receive(job);
    }
    throw new NoteError(ours("key"));
  }
  if (!reply.ok) throw serverError((await reply.json()).error);
  const note = version.model ? [ours("answeredBy", version.model)] : [];
  let ended = false; // a notice says why the answer ended
  let tokens = 0;
  let complete = false;
  for await (const chunk of events(reply.body)) {
    if (chunk.error) throw serverError(chunk.error);
    if (chunk.usage) tokens = chunk.usage.completion_tokens;
    const report = chunk.cogvlm2 || {};
    if (report.phase) {
      showProgress(job, `${words[report.phase]} ${Math.round(100 * report.done / report.total)}%`);
      phase = report.phase; // "decode": of a token that takes long
      heldBytes = report.held_bytes;
      showMemory();
    }
    if (report.dropped_turns) note.push(ours("dropped", report.dropped_turns));
    const texts = report.texts || {};
    (report.notices || []).forEach((notice, index) => { note.push(theirs(notice, texts.notices?.[index])); });
    if (report.pages) Object.assign(version, { page: report.page, pages: report.pages });
    if (report.notice) { note.push(theirs(report.notice, texts.notice)); ended = true; }
    const choice = chunk.choices[0];
    if (!choice) continue;
    if (choice.finish_reason) { complete = true; version.cut = choice.finish_reason === "length"; }
    if (choice.finish_reason === "length" && !ended) note.push(ours("cut"));
    const text = choice.delta.content || "";
    if (text) {
      const low = atEnd();
      version.answer += text;
      const drawn = view(job);
      if (drawn) grown(drawn);
      showProgress(job, "");
      // The timer alone is slow in a tab that is not shown.
      if (performance.now() - job.savedAt >= SAVE_MS) store(mine);
      if (phase !== "decode") { phase = "decode"; showMemory(); }
      if (low && drawn) at("turns").scrollTop = at("turns").scrollHeight;
    }
  }
  if (!complete) throw new NoteError(ours("broken"));
  return [...note, ours("tokens", tokens, ((performance.now() - began) / 1000).toFixed(1))];
}

// --- the server --------------------------------------------------------------------------------

async function get(path) {
  const reply = await fetch(path, { headers: headers() });
  return reply.ok ? reply : null;
}

// Returns the chosen model, or "" if only one is listed.
function model() {
  return models.length > 1 ? at("model").value : "";
}

async function listModels() {
  const reply = await get("/v1/models");
  if (!reply) return;
  models = (await reply.json()).data.map((one) => one.id);
  at("model").replaceChildren(...models.map((name) => make("option", "", name)));
  const kept = localStorage.getItem("model");
  // At first it is the first adapter, as for requests that name no model.
  at("model").value = models.includes(kept) ? kept : models[1] || models[0];
  at("model").hidden = models.length < 2;
}

async function updateState() {
  try {
    const health = await (await fetch("/health")).json();
    const ready = health.status === "ready";
    const waiting = health.status === "empty" ? words.unloaded : words.loading;
    at("state").textContent = ready ? words.ready : waiting;
    if (!ready) {
      plan = null; // the plan may be different after loading
      return showMemory();
    }
    const counters = await get("/metrics");
    if (!counters) return; // the key is not known yet
    if (!models.length) await listModels();
    const found = readMetrics(await counters.text());
    if (found.requests_waiting) at("state").textContent += ` · ${words.queue(found.requests_waiting)}`;
    if (!jobs.size) heldBytes = found.memory_held_bytes || 0;
    if (!plan || plan.peak_bytes !== found.memory_planned_bytes) {
      const reply = await get("/v1/plan");
      plan = reply ? (await reply.json()).plan : null;
    }
    showMemory();
  } catch {
    at("state").textContent = words.away;
  }
}

// --- event handlers ----------------------------------------------------------------------------

at("composer").onsubmit = (event) => {
  event.preventDefault();
  if (jobs.has(conversation.id)) return stop();
  const question = at("question").value.trim();
  if (!question) return at("question").focus();
  at("question").value = "";
  sessionStorage.removeItem("draft");
  grow();
  showMessage("");
  ask(question);
};
function stop() {
  const job = jobs.get(conversation.id);
  if (job) job.stop.abort();
}
function grow() {
  at("question").style.height = "auto";
  at("question").style.height = `${at("question").scrollHeight}px`;
}
at("question").oninput = () => {
  sessionStorage.setItem("draft", at("question").value);
  grow();
};
at("question").onkeydown = (event) => {
  // isComposing: this Enter ends the input of a Chinese word and must not send.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (!jobs.has(conversation.id)) at("composer").requestSubmit();
};
document.onkeydown = (event) => {
  if (document.querySelector("dialog[open]")) return; // Escape closes it, and stops no answer
  if (event.key === "Escape") stop();
  if (event.altKey && event.code === "KeyN") { event.preventDefault(); fresh(); }
  const typing = event.target.closest("input, textarea, dialog");
  if (event.key === "/" && !typing) { event.preventDefault(); at("question").focus(); }
};
at("settings").onclick = () => openSettings(at, words);
at("search").oninput = listConversations;
at("new").onclick = fresh;
at("menu").onclick = () => {
  const open = at("side").classList.toggle("open");
  at("menu").setAttribute("aria-expanded", String(open));
};
at("model").onchange = () => localStorage.setItem("model", at("model").value);
at("language").onclick = () => {
  language = language === "en" ? "zh" : "en";
  localStorage.setItem("language", language);
  translate();
  updateState();
  draw();
};
at("pick").onclick = () => at("file").click();
for (const field of [at("file"), at("camera-file")]) {
  field.onchange = () => { if (field.files[0]) takeFile(field.files[0]); field.value = ""; };
}
at("camera").onclick = async () => {
  showMessage("");
  const trouble = () => showMessage(words.noCamera);
  const file = await takePicture(at("camera-dialog"), at("camera-file"), trouble);
  if (file) takeFile(file);
};
at("thumb").onerror = async () => {
  const mine = picture;
  if (!mine) return;
  at("thumb").hidden = true;
  at("thumb-name").textContent = mine.name || words.noPreview;
  if (at("thumb").src.startsWith("blob:")) return;
  const page = Number(at("page").value) || 0;
  const address = await preview(mine.url, page, (trouble) => { if (mine === picture) showMessage(trouble.trim()); });
  if (!address || mine !== picture) return;
  at("thumb").src = address;
  at("thumb").hidden = false;
  at("thumb-name").textContent = "";
};
at("page").onchange = () => { if (picture) { at("thumb").hidden = false; at("thumb").src = picture.url; } };
at("picture-dialog").onclick = () => at("picture-dialog").close();
at("key-cancel").onclick = () => at("key-dialog").close("");
at("sure-cancel").onclick = () => at("sure-dialog").close("");
at("drop-picture").onclick = () => choosePicture(null);
document.ondragover = (event) => { event.preventDefault(); document.body.classList.add("over"); };
document.ondragleave = () => document.body.classList.remove("over");
document.ondrop = (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  if (event.dataTransfer.files[0]) takeFile(event.dataTransfer.files[0]);
};
document.onpaste = (event) => {
  const file = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
  if (file) { event.preventDefault(); takeFile(file); }
};

window.onpagehide = () => {
  for (const { mine, version } of jobs.values()) {
    store(mine); // the browser usually completes what was begun
    announce(mine.id, { ended: version.id });
  }
};

async function begin() {
  translate();
  draw();
  updateState();
  setInterval(updateState, 5000);
  at("question").value = sessionStorage.getItem("draft") || "";
  onNews(readNews);
  await openHistory((trouble) => showMessage(trouble ? words[trouble] : ""));
  const last = Number(sessionStorage.getItem("open") || localStorage.getItem("open"));
  const kept = last ? await load(last) : undefined;
  // What was asked or chosen in the meantime stays.
  const early = new Set([conversation, ...[...jobs.values()].map((job) => job.mine)]);
  for (const mine of early) if (mine.turns.length) store(mine);
  if (!conversation.turns.length && !picture) return show(kept || conversation);
  remember();
  listConversations();
}
begin();
