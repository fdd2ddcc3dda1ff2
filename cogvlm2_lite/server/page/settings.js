"use strict";
// The settings of answers. They are kept in this browser; what is empty is the server's default.

const FIELDS = [["tokens", "max_tokens"], ["temperature", "temperature"], ["top-p", "top_p"], ["seed", "seed"]];

// Returns {tokens, temperature, "top-p", seed: numbers or missing, system: a text}.
export function readSettings() {
  try {
    const found = JSON.parse(localStorage.getItem("settings")) || {};
    const numbers = FIELDS.filter(([name]) => Number.isFinite(found[name])).map(([name]) => [name, found[name]]);
    return { ...Object.fromEntries(numbers), system: typeof found.system === "string" ? found.system : "" };
  } catch {
    return { system: "" };
  }
}

// Returns the fields of a request.
export function sampling(settings) {
  const given = FIELDS.filter(([name]) => settings[name] !== undefined);
  return Object.fromEntries(given.map(([name, field]) => [field, settings[name]]));
}

// Marks the button while a setting is not the default.
export function showSettings(at, words) {
  const settings = readSettings();
  const changed = Boolean(settings.system) || Object.keys(sampling(settings)).length > 0;
  const label = changed ? words.settingsChanged : words.settings;
  at("settings").classList.toggle("changed", changed);
  at("settings").title = label;
  at("settings").setAttribute("aria-label", label);
}

export function openSettings(at, words) {
  const dialog = at("settings-dialog");
  const fill = (settings) => {
    for (const [name] of FIELDS) at(`set-${name}`).value = settings[name] ?? "";
    at("set-system").value = settings.system || "";
  };
  fill(readSettings());
  at("settings-reset").onclick = () => fill({});
  at("settings-cancel").onclick = () => dialog.close("");
  dialog.returnValue = "";
  dialog.onclose = () => {
    if (dialog.returnValue !== "ok") return;
    const given = FIELDS.map(([name]) => [name, at(`set-${name}`).value]).filter(([, value]) => value !== "");
    const settings = Object.fromEntries(given.map(([name, value]) => [name, Number(value)]));
    localStorage.setItem("settings", JSON.stringify({ ...settings, system: at("set-system").value.trim() }));
    showSettings(at, words);
  };
  dialog.showModal();
}
