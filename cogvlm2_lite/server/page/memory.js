"use strict";
// The memory bar: the plan of the current phase, and the memory that the engine uses now.

import { make } from "./elements.js";

const PHASES = { encode: "encode", prefill: "prefill with picture", decode: "decode" };
const VISION = new Set(["vision tower", "projector", "vision expert"]);
const KINDS = ["vision", "language", "cache", "work"];

export function size(bytes) {
  const gib = bytes / 1024 ** 3;
  return gib >= 1 ? `${gib.toFixed(2)} GiB` : `${Math.round(bytes / 1024 ** 2)} MiB`;
}

const sum = (values) => Object.values(values || {}).reduce((a, b) => a + b, 0);

// Returns the bytes of each kind in a phase, over all devices.
export function shares(plan, phase) {
  const total = { vision: 0, language: 0, cache: 0, work: 0, streamed: 0 };
  for (const device of plan.devices || []) {
    const found = device.phases.find((one) => one.phase === PHASES[phase]);
    if (!found) continue;
    for (const [part, bytes] of Object.entries(found.resident_bytes)) {
      total[VISION.has(part) ? "vision" : "language"] += bytes;
    }
    total.cache += found.cache_bytes;
    total.work += found.scratch_bytes + found.buffer_bytes + (found.spare_bytes || 0);
    total.streamed += sum(found.streamed_bytes);
  }
  return total;
}

// plan: from /v1/plan, or null; held: bytes in use, 0 if unknown
export function drawMemory(at, plan, phase, held, words) {
  const peak = plan ? plan.peak_bytes || 0 : 0;
  at("memory").hidden = !peak;
  if (!peak) return;
  at("memory-text").textContent = words.memory(held ? size(held) : "", size(peak));
  const found = shares(plan, phase);
  const scale = Math.max(peak, KINDS.reduce((all, kind) => all + found[kind], 0));
  at("memory-bar").setAttribute("aria-label", at("memory-text").textContent);
  at("memory-bar").replaceChildren(...KINDS.filter((kind) => found[kind]).map((kind) => {
    const part = make("span", kind);
    part.style.width = `${100 * found[kind] / scale}%`;
    part.title = `${words[kind]}: ${size(found[kind])}`;
    return part;
  }));
  const mark = make("i");
  mark.style.left = `${Math.min(100, 100 * held / scale)}%`;
  mark.hidden = !held;
  at("memory-bar").append(mark);
  at("memory-legend").replaceChildren(...KINDS.filter((kind) => found[kind]).map((kind) => {
    const row = make("li");
    row.append(make("span", kind), `${words[kind]} ${size(found[kind])}`);
    return row;
  }));
  at("memory-streamed").textContent =
    found.streamed && phase === "decode" ? words.streamed(size(found.streamed)) : "";
}

// Returns the server's counters as {name: number}, without those that have labels.
export function readMetrics(text) {
  const rows = text.matchAll(/^cogvlm2_(\w+) ([-+.\w]+)$/gm);
  return Object.fromEntries([...rows].map((row) => [row[1], Number(row[2])]));
}
