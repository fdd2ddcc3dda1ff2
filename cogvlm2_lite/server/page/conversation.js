"use strict";
// Conversations as they are stored:
//   {id, name, namedAt, stored, turns: [{id, at, question, picture: {id, name, page}, versions, chosen, chosenAt,
//    edits, needs}], edited: {the id of a first turn: {id of the turn that is shown instead, at}}}
// An answer is a version: {id, at, revision, answer, note, bad, cut, done, page, pages, model}. "Try again" adds one.
// Its note is a list of sentences, see page.js.
// An edited question is another turn: `edits` is the id of the first one. `needs` says of each edited question
// before a turn which one it follows: {the id of the first one: id}. path() returns the turns that are shown.
// Ids never change, so that tabs which write the same conversation can merge what they have.

export function newId() { // crypto.randomUUID is missing in http pages of other machines
  return [...crypto.getRandomValues(new Uint32Array(4))].map((part) => part.toString(36)).join("-");
}

export function newConversation() {
  // The random fraction separates conversations that two tabs begin in the same millisecond.
  return { id: Date.now() + Math.random(), name: "", namedAt: 0, stored: false, turns: [], edited: {} };
}

// Returns the time for a new entry; it is later than the others even if the clock was set back.
const later = (entries) => Math.max(Date.now(), ...entries.map((one) => one.at + 1));

// Returns the turns that are shown, and which question was chosen of each edited one: {turns, needs}.
function follow({ turns, edited = {} }) {
  const needs = {};
  const followed = turns.filter(({ id, edits = id, needs: own = {} }) => {
    if (Object.keys(needs).some((first) => (own[first] || first) !== needs[first] && first !== id)) return false;
    if (edited[edits]) needs[edits] = edited[edits].id;
    return !needs[edits] || needs[edits] === id;
  });
  return { turns: followed, needs };
}

export const path = (conversation) => follow(conversation).turns;

// Returns the turns with the same place: a question, and what it was changed to.
export function questions({ turns }, { id, edits = id }) {
  return turns.filter((turn) => turn.id === edits || turn.edits === edits);
}

export function chooseQuestion(conversation, { id, edits = id }) {
  const before = conversation.edited && conversation.edited[edits];
  const chosen = { id, at: Math.max(Date.now(), before ? before.at + 1 : 0) };
  conversation.edited = { ...conversation.edited, [edits]: chosen };
}

// Adds another question in the place of a turn. It and what follows it stay, and can be chosen again.
export function editTurn(conversation, old, question) {
  const { id, edits = id, picture } = old;
  const turn = addTurn(conversation, question, picture);
  Object.assign(turn, { edits, needs: { ...old.needs, [edits]: turn.id } });
  chooseQuestion(conversation, turn);
  return turn;
}

export function addTurn(conversation, question, picture) {
  const at = later(conversation.turns);
  const { needs } = follow(conversation);
  const turn = { id: newId(), at, question, picture, versions: [], chosen: "", chosenAt: 0, needs };
  conversation.turns.push(turn);
  conversation.name = conversation.name || question.slice(0, 60);
  return turn;
}

export function addVersion(turn) {
  const at = later(turn.versions);
  const version = { id: newId(), at, revision: 0, answer: "", note: "", bad: false, cut: true, done: false };
  turn.versions.push(version);
  choose(turn, version);
  return version;
}

export function choose(turn, version) {
  turn.chosen = version.id;
  turn.chosenAt = Math.max(Date.now(), turn.chosenAt + 1);
}

export function shown(turn) {
  return turn.versions.find((one) => one.id === turn.chosen) || turn.versions.at(-1);
}

// Returns the last turn that has a picture, or undefined.
export const pictureTurn = (conversation) => path(conversation).findLast((turn) => turn.picture);

const byTime = (a, b) => a.at - b.at || (a.id < b.id ? -1 : 1);

// Adds to a conversation what only the other copy has. Of one answer, the copy that was saved more often wins:
// only the tab that receives an answer saves it.
export function merge(own, other) {
  if (other.namedAt > own.namedAt) Object.assign(own, { name: other.name, namedAt: other.namedAt });
  own.edited = { ...own.edited };
  for (const [first, chosen] of Object.entries(other.edited || {})) {
    if (!own.edited[first] || chosen.at > own.edited[first].at) own.edited[first] = chosen;
  }
  for (const turn of other.turns) {
    const mine = own.turns.find((one) => one.id === turn.id);
    if (mine) mergeTurn(mine, turn); else own.turns.push(turn);
  }
  own.turns.sort(byTime);
}

function mergeTurn(own, other) {
  for (const version of other.versions) {
    const mine = own.versions.find((one) => one.id === version.id);
    if (!mine) own.versions.push(version);
    else if (version.revision > mine.revision) Object.assign(mine, version);
  }
  own.versions.sort(byTime);
  if (other.chosenAt > own.chosenAt) Object.assign(own, { chosen: other.chosen, chosenAt: other.chosenAt });
}

// Returns the row of the list for a conversation: its name, and all its words for the search.
export function listed({ id, name, turns }) {
  const said = turns.flatMap((turn) => [turn.question, ...turn.versions.map((one) => one.answer)]);
  return { id, name, text: [name, ...said].join("\n").toLowerCase() };
}

// Returns a conversation of the first version of the store, and its picture if it has one.
export function fromFirstVersion(old) {
  const turns = (old.turns || []).map((turn, index) => {
    const id = `${old.id}-${index}`;
    const { answer = "", note = "", bad = false, page, pages } = turn;
    const version = { id, at: index, revision: 1, answer, note, bad, done: true, page, pages };
    return { id, at: index, question: turn.question || "", versions: [version], chosen: id, chosenAt: 0 };
  });
  const conversation = { id: old.id, name: old.name || "", namedAt: 0, stored: true, turns };
  if (!old.picture || !turns.length) return { conversation, picture: null };
  const id = `${old.id}-picture`;
  const asked = turns[old.pictureTurn] || turns[0];
  asked.picture = { id, name: old.pictureName || "", page: old.picturePage || 0 };
  return { conversation, picture: { id, url: old.picture } };
}
