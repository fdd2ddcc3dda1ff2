"use strict";
// The chat page. It uses no library and no build step. The API key is kept until the tab is closed.

import { takePicture } from "./camera.js";
import { build, copyButton, make } from "./elements.js";
import { find, load, openHistory, remove, save } from "./history.js";
import { drawMemory, readMetrics } from "./memory.js";
import { TEXT } from "./words.js";

const MAX_PICTURE = 96 * 1024 * 1024;
// Browsers know no type for some of these, and show not all of them.
const SUFFIXES = { heic: "heic", heif: "heif", hif: "heif", avif: "avif", avifs: "avif", tif: "tiff", tiff: "tiff",
  jfif: "jpeg", jpe: "jpeg", mpo: "jpeg", dib: "bmp", apng: "apng" };
const WITH_PAGES = /^data:image\/(tiff|gif)/; // others rarely have several
const at = (id) => document.getElementById(id);
let language = localStorage.getItem("language")
  || (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");
let words = TEXT[language];
// {id, name, picture, pictureName, picturePage, turns: [{question, answer, note, bad, pages}]}
let conversation = null;
let picture = null; // {url: a data: URL, name, page: 0 if none was chosen}, for the next question
let running = null; // AbortController of the answer in progress
let plan = null; // from /v1/plan
let phase = "decode"; // the phase in the memory bar
let heldBytes = 0; // as last reported by the engine
const RENDER_MS = 300; // minimum time between two renderings of a growing answer

// --- history -----------------------------------------------------------------------------------

async function listConversations() {
  const { total, conversations } = await find(at("search").value);
  at("search").hidden = total < 2;
  const none = conversations.length || !total ? [] : [make("li", "none", words.nothing)];
  at("conversations").replaceChildren(...none, ...conversations.map((one) => {
    const row = make("li", conversation && one.id === conversation.id ? "open" : "");
    const name = make("button", "quiet name", one.name);
    name.onclick = () => { show(one); closeMenu(); };
    const away = make("button", "quiet", "×");
    away.setAttribute("aria-label", `${words.delete}: ${one.name}`);
    away.onclick = async () => {
      await remove(one.id);
      if (conversation && conversation.id === one.id) fresh(); else listConversations();
    };
    row.append(name, away);
    return row;
  }));
}

// --- display -----------------------------------------------------------------------------------

function translate() {
  words = TEXT[language];
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const [id, text] of [["language", words.other], ["new", words.new], ["welcome", words.welcome],
    ["hint", words.hint], ["page-label", words.page], ["key-label", words.key], ["camera-take", words.take],
    ["camera-cancel", words.cancel], ["send", running ? words.stop : words.send]]) {
    at(id).textContent = text;
  }
  at("question").placeholder = words.placeholder;
  at("question").setAttribute("aria-label", words.placeholder);
  at("search").placeholder = words.search;
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

function drawTurn(turn, index) {
  const row = make("li");
  const asked = make("div", "asked");
  if (index === conversation.pictureTurn && conversation.picture) {
    const image = make("img");
    image.onerror = () => image.replaceWith(make("div", "file", conversation.pictureName || words.noPreview));
    image.src = conversation.picture;
    image.alt = "";
    asked.append(image);
  }
  asked.append(turn.question);
  const said = make("div", "said");
  const rendered = make("div");
  const tail = make("span", "tail", turn.answer);
  said.append(rendered, tail);
  const note = make("div", `note${turn.bad ? " bad" : ""}`, turn.note || "");
  row.append(asked, said, note);
  at("turns").append(row);
  return { row, rendered, tail, note, shown: 0, asking: false, pause: RENDER_MS };
}

// Returns a tree of elements for each text, or null if the server returns an error.
async function markdown(texts) {
  try {
    const body = JSON.stringify({ texts });
    const reply = await fetch("/page/markdown", { method: "POST", headers: headers(), body });
    return reply.ok ? (await reply.json()).texts : null;
  } catch {
    return null; // the answer is then shown as plain text
  }
}

function place(drawn, nodes, answer, length) {
  drawn.rendered.replaceChildren(...build(nodes, words));
  drawn.shown = length;
  drawn.tail.textContent = answer.slice(length);
}

// Shows a growing answer: Markdown up to the last rendering, then plain text.
async function grown(turn, drawn) {
  drawn.tail.textContent = turn.answer.slice(drawn.shown);
  if (drawn.asking) return;
  drawn.asking = true;
  await new Promise((done) => setTimeout(done, drawn.pause));
  const began = performance.now();
  await settle(turn, drawn);
  drawn.pause = Math.max(RENDER_MS, 5 * (performance.now() - began)); // render long answers less often
  drawn.asking = false;
}

async function settle(turn, drawn) {
  const answer = turn.answer;
  if (answer.length === drawn.shown) return; // rendering again would reset what the user selected
  const found = await markdown([answer]);
  if (found && answer.length >= drawn.shown) place(drawn, found[0], turn.answer, answer.length);
}

// Renders the answers of an opened conversation, a few at a time.
async function settleAll(turns) {
  for (let begin = 0; begin < turns.length;) {
    let end = begin + 1;
    let characters = turns[begin][0].answer.length;
    while (end < turns.length && (characters += turns[end][0].answer.length) < 30000) end += 1;
    const group = turns.slice(begin, end);
    const found = await markdown(group.map(([turn]) => turn.answer));
    group.forEach(([turn, drawn], index) => {
      if (found) place(drawn, found[index], turn.answer, turn.answer.length);
    });
    begin = end;
  }
}

function addButtons(turn, drawn) {
  if (turn.answer) {
    drawn.note.append(" ", copyButton(words, () => turn.answer));
  }
  if (turn.pages > 1) {
    const other = make("button", "quiet other-page", words.otherPage);
    other.onclick = () => { if (!running) choosePage(turn); };
    drawn.note.append(" ", other);
  }
  if (turn === conversation.turns.at(-1)) {
    const again = make("button", "quiet again", words.again);
    again.onclick = () => { if (!running) { conversation.turns.pop(); drawn.row.remove(); ask(turn.question); } };
    drawn.note.append(" ", again);
  }
}

function show(one) {
  if (running) running.abort();
  conversation = one;
  choosePicture(null);
  at("turns").replaceChildren();
  const drawn = conversation.turns.map((turn, index) => [turn, drawTurn(turn, index)]);
  drawn.forEach(([turn, row]) => addButtons(turn, row));
  settleAll(drawn.filter(([turn]) => turn.answer));
  at("turns").scrollTop = at("turns").scrollHeight;
  localStorage.setItem("open", String(conversation.id));
  listConversations();
}

function fresh() {
  show({ id: Date.now(), name: "", picture: null, pictureTurn: -1, turns: [] });
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
function choosePage(turn) {
  const { picture: url, pictureName: name } = conversation;
  fresh();
  choosePicture({ url, name, page: turn.page < turn.pages ? turn.page + 1 : 1 });
  at("question").value = turn.question;
  grow();
}

function takeFile(file) {
  showMessage("");
  const kind = file.type || `image/${SUFFIXES[file.name.split(".").at(-1).toLowerCase()] || ""}`;
  if (!/^image\/./.test(kind)) return showMessage(words.notPicture);
  if (file.size > MAX_PICTURE) return showMessage(words.large);
  const reader = new FileReader();
  reader.onload = () => {
    if (conversation.picture) fresh(); // the model takes one picture per conversation
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

function askForKey() {
  return new Promise((done) => {
    at("key-dialog").onclose = () => { sessionStorage.setItem("key", at("key").value); done(); };
    at("key-dialog").showModal();
  });
}

function messages() {
  const list = [];
  conversation.turns.forEach((turn, index) => {
    const text = { type: "text", text: turn.question };
    const image = { type: "image_url", image_url: { url: conversation.picture } };
    if (conversation.picturePage) image.page = conversation.picturePage;
    list.push({ role: "user", content: index === conversation.pictureTurn ? [image, text] : [text] });
    if (index < conversation.turns.length - 1) list.push({ role: "assistant", content: turn.answer });
  });
  return list;
}

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
  const mine = conversation;
  if (picture) {
    mine.picture = picture.url;
    mine.pictureName = picture.name;
    mine.picturePage = Number(at("page").value) || 0;
    mine.pictureTurn = mine.turns.length;
    choosePicture(null);
  }
  const turn = { question, answer: "", note: words.reload, bad: false };
  mine.turns.push(turn);
  mine.name = mine.name || question.slice(0, 60);
  await save(mine); // before the request, so that a crash loses no question
  listConversations();
  const drawn = drawTurn(turn, mine.turns.length - 1);
  drawn.note.textContent = words.waiting;
  at("turns").scrollTop = at("turns").scrollHeight;
  running = new AbortController();
  at("send").textContent = words.stop;
  try {
    turn.note = await read(turn, drawn, running.signal);
  } catch (error) {
    turn.bad = error.name !== "AbortError";
    turn.note = turn.bad ? error.message : words.stopped;
  }
  running = null;
  phase = "decode";
  showMemory();
  at("send").textContent = words.send;
  drawn.note.textContent = turn.note;
  drawn.note.classList.toggle("bad", turn.bad);
  await save(mine);
  if (turn.answer) await settle(turn, drawn);
  if (conversation === mine) addButtons(turn, drawn);
}

async function read(turn, drawn, signal) {
  const body = JSON.stringify({
    messages: messages(), stream: true, truncation: "auto",
    stream_options: { include_usage: true, include_progress: true },
  });
  const began = performance.now();
  const reply = await fetch("/v1/chat/completions", { method: "POST", headers: headers(), body, signal });
  if (reply.status === 401) {
    await askForKey();
    return read(turn, drawn, signal);
  }
  if (!reply.ok) throw new Error((await reply.json()).error.message);
  let note = "";
  let ended = false; // a notice says why the answer ended
  let tokens = 0;
  for await (const chunk of events(reply.body)) {
    if (chunk.error) throw new Error(chunk.error.message);
    if (chunk.usage) tokens = chunk.usage.completion_tokens;
    const report = chunk.cogvlm2 || {};
    if (report.phase) {
      drawn.note.textContent = `${words[report.phase]} ${Math.round(100 * report.done / report.total)}%`;
      phase = report.phase;
      heldBytes = report.held_bytes;
      showMemory();
    }
    if (report.dropped_turns) note += `${words.dropped(report.dropped_turns)} `;
    if (report.notices) for (const notice of report.notices) note += `${notice} `;
    if (report.pages) Object.assign(turn, { page: report.page, pages: report.pages });
    if (report.notice) { note += `${report.notice} `; ended = true; }
    const choice = chunk.choices[0];
    if (!choice) continue;
    if (choice.finish_reason === "length" && !ended) note += `${words.cut} `;
    const text = choice.delta.content || "";
    if (text) {
      const list = at("turns");
      const low = list.scrollHeight - list.scrollTop - list.clientHeight < 60;
      turn.answer += text;
      grown(turn, drawn);
      drawn.note.textContent = "";
      if (phase !== "decode") { phase = "decode"; showMemory(); }
      if (low) list.scrollTop = list.scrollHeight;
    }
  }
  return note + words.tokens(tokens, ((performance.now() - began) / 1000).toFixed(1));
}

// --- the server --------------------------------------------------------------------------------

async function get(path) {
  const reply = await fetch(path, { headers: headers() });
  return reply.ok ? reply : null;
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
    const found = readMetrics(await counters.text());
    if (found.requests_waiting) at("state").textContent += ` · ${words.queue(found.requests_waiting)}`;
    if (!running) heldBytes = found.memory_held_bytes || 0;
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
  if (running) return running.abort();
  const question = at("question").value.trim();
  if (!question) return at("question").focus();
  at("question").value = "";
  grow();
  showMessage("");
  ask(question);
};
function grow() {
  at("question").style.height = "auto";
  at("question").style.height = `${at("question").scrollHeight}px`;
}
at("question").oninput = grow;
at("question").onkeydown = (event) => {
  // isComposing: this Enter ends the input of a Chinese word and must not send.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (!running) at("composer").requestSubmit();
};
document.onkeydown = (event) => {
  if (event.key === "Escape" && running) running.abort();
  if (event.altKey && event.code === "KeyN") { event.preventDefault(); fresh(); }
  const typing = event.target.closest("input, textarea, dialog");
  if (event.key === "/" && !typing) { event.preventDefault(); at("question").focus(); }
};
at("search").oninput = listConversations;
at("new").onclick = fresh;
at("menu").onclick = () => {
  const open = at("side").classList.toggle("open");
  at("menu").setAttribute("aria-expanded", String(open));
};
at("language").onclick = () => {
  language = language === "en" ? "zh" : "en";
  localStorage.setItem("language", language);
  translate();
  updateState();
  if (!running) show(conversation);
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
at("thumb").onerror = () => {
  if (!picture) return;
  at("thumb").hidden = true;
  at("thumb-name").textContent = picture.name || words.noPreview;
};
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

async function begin() {
  translate();
  await openHistory();
  const last = Number(localStorage.getItem("open"));
  const kept = last ? await load(last) : undefined;
  if (kept) show(kept); else fresh();
  updateState();
  setInterval(updateState, 5000);
}
begin();
