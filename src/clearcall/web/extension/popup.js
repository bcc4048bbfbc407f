// The popup: opening it gives access to the tab (activeTab), starts content.js there, and shows what it does.

import { describeExpert } from "./sharpen.js";

const api = globalThis.browser ?? globalThis.chrome;
const STATE_MS = 500;
const $ = id => document.getElementById(id);

const [tab] = await api.tabs.query({ active: true, currentWindow: true });
const target = { tabId: tab.id, allFrames: true };
let { off, ...values } = await api.storage.local.get({ strength: 1, look: "natural", model: "fast", off: [] });
let origin = null;

function show() {
  for (const [id, value] of Object.entries(values)) $(id).value = value;
  $("strength-value").textContent = Number($("strength").value).toFixed(1);
  $("on").checked = !off.includes(origin);
}

function say(...lines) {
  $("state").replaceChildren(...lines.map(text => Object.assign(document.createElement("li"), { textContent: text })));
}

function describe({ isLoaded, isSteady, reason, size, fps, latency, expert, late }) {
  if (reason) return reason;
  if (!isLoaded) return "loading the network";
  if (!size) return "waiting for a frame";
  if (!isSteady) return `${size}: measuring the speed`;
  return `${size}, ${fps.toFixed(1)} fps, ${Math.round(latency)} ms, ${describeExpert(expert, values.look)}, ${late} late`;
}

async function refresh() {
  const found = await api.scripting.executeScript({ target, func: () => globalThis.clearcall?.() ?? [] });
  const videos = found.flatMap(one => one.result ?? []);
  if (!$("on").checked || $("strength").value === "0") say("Off.");
  else if (videos.length) say(...videos.map(describe));
  else say("No video in this tab.");
}

$("options").addEventListener("input", () => {
  values = { strength: Number($("strength").value), look: $("look").value, model: $("model").value };
  off = [...off.filter(one => one !== origin), ...$("on").checked ? [] : [origin]];
  show();
  api.storage.local.set({ ...values, off });
});
$("options").addEventListener("submit", event => event.preventDefault());

try {
  const [{ result }] = await api.scripting.executeScript({ target: { tabId: tab.id }, func: () => location.origin });
  origin = result;
  $("site").textContent = origin.replace(/^https?:\/\//, "");
  show();
  await api.scripting.executeScript({ target, files: ["content.js"] });
  await refresh();
  setInterval(refresh, STATE_MS);
} catch (error) {
  $("on").disabled = true;
  say(`This tab cannot be sharpened: ${error.message}`);
}
