"use strict";
// One page, no library. Text from the model is only ever set as text, never as HTML.
// Conversations stay in this browser (IndexedDB); the key lives as long as the tab.

const TEXT = {
  en: {
    other: "中文", new: "New conversation", send: "Ask", stop: "Stop",
    welcome: "Ask about a picture",
    hint: "Drop a picture here, paste one, or choose one with the button. One picture per conversation.",
    placeholder: "Your question", pick: "Choose a picture", remove: "Remove the picture",
    menu: "Conversations", delete: "Delete", key: "This server asks for an API key.",
    ready: "ready", loading: "loading the model …", away: "the server can't be reached",
    encode: "Looking at the picture", prefill: "Reading the question", waiting: "Waiting …",
    stopped: "Stopped.", cut: "The answer was cut off.", copy: "Copy", again: "Try again",
    large: "The picture has more than 20 MB.", notPicture: "This is not a picture file.",
    dropped: (n) => `The oldest turns were left out (${n}): the conversation is longer than the model's context.`,
    memory: (held, most) => held ? `Memory: ${held} of ${most}` : `Memory: at most ${most}`,
    tokens: (n, s) => `${n} tokens in ${s} s`, reload: "Stopped: the page was left.",
  },
  zh: {
    other: "English", new: "新对话", send: "提问", stop: "停止",
    welcome: "就一张图片提问",
    hint: "把图片拖到这里、粘贴，或用按钮选择。每个对话一张图片。",
    placeholder: "你的问题", pick: "选择图片", remove: "移除图片",
    menu: "对话列表", delete: "删除", key: "此服务器需要 API 密钥。",
    ready: "就绪", loading: "正在加载模型……", away: "无法连接服务器",
    encode: "正在看图", prefill: "正在读问题", waiting: "等待中……",
    stopped: "已停止。", cut: "回答被截断。", copy: "复制", again: "重试",
    large: "图片超过 20 MB。", notPicture: "这不是图片文件。",
    dropped: (n) => `对话超出模型的上下文，省略了最早的 ${n} 轮。`,
    memory: (held, most) => held ? `内存：${held} / ${most}` : `内存：最多 ${most}`,
    tokens: (n, s) => `${n} 个词元，${s} 秒`, reload: "已停止：页面已关闭。",
  },
};
const MAX_PICTURE = 20 * 1024 * 1024;
const at = (id) => document.getElementById(id);
let language = localStorage.getItem("language")
  || (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");
let words = TEXT[language];
let talk = null; // {id, name, picture, turns: [{question, answer, note, bad}]}
let picture = null; // a data: address, for the next question
let running = null; // AbortController of the answer under way
let base = null; // IndexedDB
let plannedBytes = 0;
let heldBytes = 0; // as the engine last said

function make(name, kind, text) {
  const node = document.createElement(name);
  if (kind) node.className = kind;
  if (text !== undefined) node.textContent = text;
  return node;
}

function size(bytes) {
  const gib = bytes / 1024 ** 3;
  return gib >= 1 ? `${gib.toFixed(2)} GiB` : `${Math.round(bytes / 1024 ** 2)} MiB`;
}

// --- history -----------------------------------------------------------------------------------

function openBase() {
  return new Promise((done) => {
    const request = indexedDB.open("cogvlm2-lite", 1);
    request.onupgradeneeded = () => request.result.createObjectStore("talks", { keyPath: "id" });
    request.onsuccess = () => done(request.result);
    request.onerror = () => done(null); // a private window: nothing is kept
  });
}

function stored(mode, work) {
  return new Promise((done) => {
    if (!base) return done(undefined);
    const request = work(base.transaction("talks", mode).objectStore("talks"));
    request.onsuccess = () => done(request.result);
    request.onerror = () => done(undefined);
  });
}

const save = () => stored("readwrite", (store) => store.put(talk));

async function listTalks() {
  const all = (await stored("readonly", (store) => store.getAll())) || [];
  all.sort((a, b) => b.id - a.id);
  at("talks").replaceChildren(...all.map((one) => {
    const row = make("li", talk && one.id === talk.id ? "open" : "");
    const name = make("button", "quiet name", one.name);
    name.onclick = () => { show(one); closeMenu(); };
    const remove = make("button", "quiet", "×");
    remove.setAttribute("aria-label", `${words.delete}: ${one.name}`);
    remove.onclick = async () => {
      await stored("readwrite", (store) => store.delete(one.id));
      if (talk && talk.id === one.id) fresh(); else listTalks();
    };
    row.append(name, remove);
    return row;
  }));
}

// --- what is shown -----------------------------------------------------------------------------

function translate() {
  words = TEXT[language];
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const [id, text] of [["language", words.other], ["new", words.new], ["welcome", words.welcome],
    ["hint", words.hint], ["key-label", words.key], ["send", running ? words.stop : words.send]]) {
    at(id).textContent = text;
  }
  at("question").placeholder = words.placeholder;
  at("question").setAttribute("aria-label", words.placeholder);
  for (const [id, text] of [["pick", words.pick], ["drop-picture", words.remove], ["menu", words.menu]]) {
    at(id).setAttribute("aria-label", text);
    at(id).title = text;
  }
  showMemory();
}

function showMemory(held = heldBytes) {
  heldBytes = held;
  at("memory").hidden = !plannedBytes;
  at("memory-text").textContent = words.memory(held ? size(held) : "", size(plannedBytes));
  at("memory-bar").value = plannedBytes ? held / plannedBytes : 0;
}

function say(text) { at("message").textContent = text; }

function closeMenu() {
  at("side").classList.remove("open");
  at("menu").setAttribute("aria-expanded", "false");
}

function drawTurn(turn, index) {
  const row = make("li");
  const asked = make("div", "asked");
  if (index === talk.pictureTurn && talk.picture) {
    const image = make("img");
    image.src = talk.picture;
    image.alt = "";
    asked.append(image);
  }
  asked.append(turn.question);
  const said = make("div", "said", turn.answer);
  const note = make("div", `note${turn.bad ? " bad" : ""}`, turn.note || "");
  row.append(asked, said, note);
  at("turns").append(row);
  return { row, said, note };
}

function addButtons(turn, drawn) {
  if (turn.answer) {
    const copy = make("button", "quiet", words.copy);
    copy.onclick = () => navigator.clipboard.writeText(turn.answer);
    drawn.note.append(" ", copy);
  }
  if (turn === talk.turns.at(-1)) {
    const again = make("button", "quiet again", words.again);
    again.onclick = () => { if (!running) { talk.turns.pop(); drawn.row.remove(); ask(turn.question); } };
    drawn.note.append(" ", again);
  }
}

function show(one) {
  if (running) running.abort();
  talk = one;
  choosePicture(null);
  at("turns").replaceChildren();
  talk.turns.forEach((turn, index) => addButtons(turn, drawTurn(turn, index)));
  at("turns").scrollTop = at("turns").scrollHeight;
  localStorage.setItem("open", String(talk.id));
  listTalks();
}

function fresh() {
  show({ id: Date.now(), name: "", picture: null, pictureTurn: -1, turns: [] });
  closeMenu();
  at("question").focus();
}

// --- pictures ----------------------------------------------------------------------------------

function choosePicture(address) {
  picture = address;
  at("preview").hidden = !address;
  if (address) at("thumb").src = address; else at("thumb").removeAttribute("src");
}

function takeFile(file) {
  say("");
  if (!file.type.startsWith("image/")) return say(words.notPicture);
  if (file.size > MAX_PICTURE) return say(words.large);
  const reader = new FileReader();
  reader.onload = () => {
    if (talk.picture) fresh(); // the model takes one picture per conversation
    choosePicture(reader.result);
    at("question").focus();
  };
  reader.readAsDataURL(file);
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
  talk.turns.forEach((turn, index) => {
    const text = { type: "text", text: turn.question };
    const image = { type: "image_url", image_url: { url: talk.picture } };
    list.push({ role: "user", content: index === talk.pictureTurn ? [image, text] : [text] });
    if (index < talk.turns.length - 1) list.push({ role: "assistant", content: turn.answer });
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
  const mine = talk;
  if (picture) {
    mine.picture = picture;
    mine.pictureTurn = mine.turns.length;
    choosePicture(null);
  }
  const turn = { question, answer: "", note: words.reload, bad: false };
  mine.turns.push(turn);
  mine.name = mine.name || question.slice(0, 60);
  await save(); // before the model begins: a crash loses no question
  listTalks();
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
  at("send").textContent = words.send;
  drawn.note.textContent = turn.note;
  drawn.note.classList.toggle("bad", turn.bad);
  await stored("readwrite", (store) => store.put(mine));
  if (talk === mine) addButtons(turn, drawn);
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
  let tokens = 0;
  for await (const chunk of events(reply.body)) {
    if (chunk.error) throw new Error(chunk.error.message);
    if (chunk.usage) tokens = chunk.usage.completion_tokens;
    const told = chunk.cogvlm2 || {};
    if (told.phase) {
      drawn.note.textContent = `${words[told.phase]} ${Math.round(100 * told.done / told.total)}%`;
      showMemory(told.held_bytes);
    }
    if (told.dropped_turns) note += `${words.dropped(told.dropped_turns)} `;
    if (told.notice) note += `${told.notice} `;
    const choice = chunk.choices[0];
    if (!choice) continue;
    if (choice.finish_reason === "length" && !note) note = `${words.cut} `;
    const text = choice.delta.content || "";
    if (text) {
      const list = at("turns");
      const low = list.scrollHeight - list.scrollTop - list.clientHeight < 60;
      turn.answer += text;
      drawn.said.textContent = turn.answer;
      drawn.note.textContent = "";
      if (low) list.scrollTop = list.scrollHeight;
    }
  }
  return note + words.tokens(tokens, ((performance.now() - began) / 1000).toFixed(1));
}

// --- the server --------------------------------------------------------------------------------

async function look() {
  try {
    const health = await (await fetch("/health")).json();
    at("state").textContent = health.status === "ready" ? words.ready : words.loading;
    if (health.status === "ready" && !plannedBytes) {
      const reply = await fetch("/v1/plan", { headers: headers() });
      if (reply.ok) {
        const plan = (await reply.json()).plan;
        plannedBytes = plan.peak_bytes || 0;
        showMemory();
      }
    }
  } catch {
    at("state").textContent = words.away;
  }
}

// --- wiring ------------------------------------------------------------------------------------

at("composer").onsubmit = (event) => {
  event.preventDefault();
  if (running) return running.abort();
  const question = at("question").value.trim();
  if (!question) return at("question").focus();
  at("question").value = "";
  grow();
  say("");
  ask(question);
};
function grow() {
  at("question").style.height = "auto";
  at("question").style.height = `${at("question").scrollHeight}px`;
}
at("question").oninput = grow;
at("question").onkeydown = (event) => {
  // isComposing: Enter that ends the writing of a Chinese word is no order to send.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (!running) at("composer").requestSubmit();
};
document.onkeydown = (event) => { if (event.key === "Escape" && running) running.abort(); };
at("new").onclick = fresh;
at("menu").onclick = () => {
  const open = at("side").classList.toggle("open");
  at("menu").setAttribute("aria-expanded", String(open));
};
at("language").onclick = () => {
  language = language === "en" ? "zh" : "en";
  localStorage.setItem("language", language);
  translate();
  look();
  if (!running) show(talk);
};
at("pick").onclick = () => at("file").click();
at("file").onchange = () => { if (at("file").files[0]) takeFile(at("file").files[0]); at("file").value = ""; };
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
  base = await openBase();
  const last = Number(localStorage.getItem("open"));
  const kept = last ? await stored("readonly", (store) => store.get(last)) : undefined;
  if (kept) show(kept); else fresh();
  look();
  setInterval(look, 5000);
}
begin();
