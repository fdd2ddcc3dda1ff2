"use strict";
// Stores the conversations in this browser (IndexedDB) and nowhere else.
// The object store has the name "talks" because earlier versions wrote it.

let base = null;

export function openHistory() {
  return new Promise((done) => {
    const request = indexedDB.open("cogvlm2-lite", 1);
    request.onupgradeneeded = () => request.result.createObjectStore("talks", { keyPath: "id" });
    request.onsuccess = () => { base = request.result; done(); };
    request.onerror = () => done(); // a private window: nothing is stored
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

export const save = (conversation) => stored("readwrite", (store) => store.put(conversation));
export const load = (id) => stored("readonly", (store) => store.get(id));
export const remove = (id) => stored("readwrite", (store) => store.delete(id));

// Returns the conversations that contain every word of a search, the newest first.
export async function find(search) {
  const searched = search.toLowerCase().split(/\s+/).filter(Boolean);
  const all = (await stored("readonly", (store) => store.getAll())) || [];
  const matches = (conversation) => {
    const text = conversation.turns.map((turn) => `${turn.question}\n${turn.answer}`).join("\n").toLowerCase();
    return searched.every((word) => text.includes(word));
  };
  return { total: all.length, conversations: all.filter(matches).sort((a, b) => b.id - a.id) };
}
