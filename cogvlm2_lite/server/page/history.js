"use strict";
// Conversations stay in this browser, in IndexedDB, and nowhere else.

let base = null;

export function openHistory() {
  return new Promise((done) => {
    const request = indexedDB.open("cogvlm2-lite", 1);
    request.onupgradeneeded = () => request.result.createObjectStore("talks", { keyPath: "id" });
    request.onsuccess = () => { base = request.result; done(); };
    request.onerror = () => done(); // a private window: nothing is kept
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

export const save = (talk) => stored("readwrite", (store) => store.put(talk));
export const load = (id) => stored("readonly", (store) => store.get(id));
export const remove = (id) => stored("readwrite", (store) => store.delete(id));

// Gives the conversations that hold every word of a search, the newest first.
export async function find(search) {
  const wanted = search.toLowerCase().split(/\s+/).filter(Boolean);
  const all = (await stored("readonly", (store) => store.getAll())) || [];
  const holds = (talk) => {
    const text = talk.turns.map((turn) => `${turn.question}\n${turn.answer}`).join("\n").toLowerCase();
    return wanted.every((word) => text.includes(word));
  };
  return { total: all.length, talks: all.filter(holds).sort((a, b) => b.id - a.id) };
}
