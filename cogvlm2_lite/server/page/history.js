"use strict";
// Stores the conversations in this browser (IndexedDB) and nowhere else. The object stores:
//   talks     the conversations; the first version wrote this name, with the picture in each
//   pictures  {id, url}: read only when a picture is shown or sent
//   texts     {id, name, text}: all that the list and the search read; this page holds a copy
// Several tabs can write. A save merges, and then the other tabs get a message.

import { fromFirstVersion, listed, merge } from "./conversation.js";

const VERSION = 2;
const STORES = ["talks", "pictures", "texts"];
let base = null;
const texts = new Map();
const channel = new BroadcastChannel("cogvlm2-lite");

// Calls trouble with "blocked", "newer", "notStored", or "" when a trouble is over.
export async function openHistory(trouble) {
  base = await opened(trouble).catch(() => null);
  if (!base) return trouble("notStored");
  trouble("");
  base.onversionchange = () => {
    base.close();
    base = null;
    trouble("newer");
  };
  base.onclose = () => { // for example, the user has deleted what the browser stores
    base = null;
    trouble("notStored");
  };
  for (const one of await read("texts", (store) => store.getAll()) || []) texts.set(one.id, one);
}

function opened(trouble) {
  return new Promise((done, fail) => {
    const request = indexedDB.open("cogvlm2-lite", VERSION);
    request.onupgradeneeded = (event) => upgrade(request.result, request.transaction, event.oldVersion);
    request.onblocked = () => trouble("blocked"); // a tab with the first version of this page is open
    request.onsuccess = () => done(request.result);
    request.onerror = () => fail(request.error);
  });
}

// Runs in one transaction: if it fails, the store is as it was.
function upgrade(database, transaction, from) {
  if (from < 1) database.createObjectStore("talks", { keyPath: "id" });
  database.createObjectStore("pictures", { keyPath: "id" });
  database.createObjectStore("texts", { keyPath: "id" });
  const [talks, pictures, index] = STORES.map((name) => transaction.objectStore(name));
  talks.openCursor().onsuccess = ({ target: { result: cursor } }) => { // one by one: pictures are large
    if (!cursor) return;
    const { conversation, picture } = fromFirstVersion(cursor.value);
    if (picture) pictures.put(picture);
    index.put(listed(conversation));
    cursor.update(conversation);
    cursor.continue();
  };
}

function read(name, work) {
  return new Promise((done, fail) => {
    const request = work(base.transaction(name).objectStore(name));
    request.onsuccess = () => done(request.result);
    request.onerror = () => fail(request.error);
  }).catch(() => undefined); // also if there is no connection
}

// Calls work with the object stores; returns whether everything was written.
function write(work) {
  return new Promise((done, fail) => {
    const transaction = base.transaction(STORES, "readwrite");
    transaction.oncomplete = () => done(true);
    transaction.onabort = () => fail(transaction.error); // for example, the disk is full
    work(...STORES.map((name) => transaction.objectStore(name)));
  }).catch(() => false); // also if there is no connection
}

export const load = (id) => read("talks", (store) => store.get(id));

// Returns a picture as a data: URL, or undefined.
export async function loadPicture(id) { return (await read("pictures", (store) => store.get(id)))?.url; }

// Saves a conversation with new pictures, and merges into it what other tabs saved. running: the id of the
// answer in progress. Returns "saved", "closed", "full", or "deleted" if another tab has deleted it.
export async function save(conversation, added, running) {
  if (!base) return "closed";
  let row = null;
  const written = await write((talks, pictures, index) => {
    talks.get(conversation.id).onsuccess = ({ target: { result: kept } }) => {
      if (conversation.stored && !kept) return;
      if (kept) merge(conversation, kept);
      row = listed(conversation);
      talks.put({ ...conversation, stored: true });
      index.put(row);
      for (const { id, url } of added) pictures.put({ id, url });
    };
  });
  if (!written) return "full";
  if (!row) return "deleted";
  conversation.stored = true;
  texts.set(row.id, row);
  announce(row.id, { running });
  return "saved";
}

export async function remove(id) {
  const written = await write((talks, pictures, index) => {
    talks.get(id).onsuccess = ({ target: { result: kept } }) => {
      for (const turn of kept ? kept.turns : []) if (turn.picture) pictures.delete(turn.picture.id);
      talks.delete(id);
      index.delete(id);
    };
  });
  if (!written) return;
  texts.delete(id);
  channel.postMessage({ removed: id });
}

// Reports to the other tabs that a conversation was saved, and which answer of it is in progress or has ended.
export const announce = (id, { running, ended }) => channel.postMessage({ changed: id, running, ended });

// Asks the other tabs whether one of them receives an answer of this conversation.
export const inquire = (id) => channel.postMessage({ asked: id });

// Calls work for each message of another tab: {changed, running, ended}, {removed} or {asked}.
export function onNews(work) {
  channel.onmessage = async ({ data }) => {
    if (data.changed) {
      const row = await read("texts", (store) => store.get(data.changed));
      if (row) texts.set(row.id, row);
    }
    if (data.removed) texts.delete(data.removed);
    work(data);
  };
}

// Returns the names and ids of the conversations that contain every word of a search, the newest first.
export function find(search) {
  const searched = search.toLowerCase().split(/\s+/).filter(Boolean);
  const found = [...texts.values()].filter(({ text }) => searched.every((word) => text.includes(word)));
  return { total: texts.size, found: found.sort((a, b) => b.id - a.id) };
}
