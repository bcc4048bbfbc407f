// The page of a rater: one item at a time, in its own pixels; each answer is stored before the next item is shown.
const byId = id => document.getElementById(id);
const KEY = "clearcall-opinion-code", SIDES = ["A is better", "No difference", "B is better"];
let session, at = 0, ready = false;

async function ask(path, method = "GET", body) {
  const headers = { rater: encodeURIComponent(session?.code ?? "") }; // of what is typed, a header holds only a part
  if (body) headers["content-type"] = "application/json";
  const answer = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
  if (!answer.ok) throw Object.assign(new Error((await answer.json().catch(() => ({}))).detail ?? `error ${answer.status}`), { status: answer.status });
  return answer.json();
}

function say(text, alert = false) {
  byId("status").textContent = text;
  byId("status").classList.toggle("alert", alert);
}

function show(name) {
  for (const id of ["start", "given", "rate", "done"]) byId(id).hidden = id !== name;
  byId("footer").hidden = name === "start";
  byId("progress").hidden = name !== "rate";
  if (name !== "rate") byId("progress-text").textContent = "";
}

async function open(code) {
  session = { code };
  session = await ask("/api/session");
  localStorage.setItem(KEY, code);
  byId("own-code").value = byId("footer-code").textContent = code;
  drawQuestions();
  // Who has voted has practised.
  const started = Object.keys(session.votes).length > 0;
  at = session.items.findIndex(item => started ? !item.training && !session.votes[item.id] : true);
  if (at < 0) at = session.items.length;
}

function drawQuestions() {
  const pairs = session.method === "pairs";
  const questions = pairs ? { preference: "Which image is better?" } : session.scales;
  const choices = pairs ? SIDES.map((label, index) => [index - 1, label]) : session.categories.map((label, index) => [index + 1, label]);
  byId("questions").replaceChildren(...Object.entries(questions).map(([name, question]) => {
    const group = document.createElement("fieldset"), legend = document.createElement("legend"), row = document.createElement("div");
    legend.textContent = question;
    row.className = "choices";
    for (const [index, [value, label]] of choices.entries()) {
      const choice = document.createElement("label"), input = document.createElement("input"), text = document.createElement("span");
      Object.assign(input, { type: "radio", name, value, required: true });
      text.textContent = pairs ? label : `${index + 1}\n${label}`;
      choice.append(input, text);
      row.append(choice);
    }
    group.append(legend, row);
    return group;
  }));
  byId("keys").textContent = `Keys: 1 to ${choices.length} answer, the arrows change an answer, Enter goes on.`;
}

function fit() { // one pixel of the image is one of the screen
  for (const image of byId("stage").querySelectorAll("img")) image.style.width = `${image.naturalWidth / devicePixelRatio}px`;
}

async function present() {
  if (at >= session.items.length) {
    show("done");
    say("All images are rated.");
    byId("done-title").focus();
    return;
  }
  const item = session.items[at], practice = session.items.filter(one => one.training).length;
  const [place, total] = item.training ? [at + 1, practice] : [at + 1 - practice, session.items.length - practice];
  const text = item.training ? `Practice ${place} of ${total}, not counted` : `${place} of ${total}`;
  show("rate");
  ready = false;
  byId("next").disabled = true;
  byId("back").disabled = at === 0;
  byId("form").reset();
  for (const [name, score] of Object.entries(session.votes[item.id] ?? {}))
    byId("form").querySelector(`[name="${name}"][value="${score}"]`).checked = true;
  Object.assign(byId("progress"), { max: total, value: place - 1 });
  byId("progress-text").textContent = text;
  say("");
  const images = item.stimuli.map(id => Object.assign(new Image(), { src: `/stimuli/${id}` }));
  const letters = images.length > 1 ? ["A", "B"] : [""];
  byId("stage").replaceChildren(...images.map((image, index) => {
    const figure = document.createElement("figure"), caption = document.createElement("figcaption");
    image.alt = `Image ${letters[index] || "to rate"}`.trim();
    caption.textContent = letters[index];
    figure.append(...(letters[index] ? [caption] : []), image);
    return figure;
  }));
  scrollTo(0, 0);
  try {
    await Promise.all(images.map(image => image.decode()));
  } catch {
    say("The image cannot be shown: it is missing or has changed. Tell whoever runs the study.", true);
    return;
  }
  if (session.items[at] !== item) return;
  fit();
  byId("stage").scrollTo(0, 0);
  byId("next").disabled = false;
  ready = true;
  say(images.length > 1 ? `Images ${text}` : `Image ${text}`);
  byId("form").querySelector("input").focus({ preventScroll: true });
  for (const id of session.items[at + 1]?.stimuli ?? []) new Image().src = `/stimuli/${id}`;
}

async function store(event) {
  event.preventDefault();
  if (!ready) return;
  const item = session.items[at];
  const scores = Object.fromEntries([...new FormData(byId("form"))].map(([name, score]) => [name, Number(score)]));
  ready = false;
  byId("next").disabled = true;
  try {
    if (!item.training) await ask(`/api/votes/${item.id}`, "PUT", { scores });
    session.votes[item.id] = scores;
    at += 1;
    await present();
  } catch (error) {
    ready = true;
    byId("next").disabled = false;
    say(`The vote is not stored: ${error.message}. Try again.`, true);
  }
}

function press(event) {
  if (byId("rate").hidden || !ready || event.ctrlKey || event.metaKey || event.altKey) return;
  const groups = [...byId("questions").children], focused = document.activeElement;
  if (event.key === "Enter" && !(focused instanceof HTMLButtonElement)) {
    event.preventDefault();
    if (!event.repeat) byId("form").requestSubmit();
    return;
  }
  // The focused question, or the first that is open.
  const group = groups.find(one => one.contains(focused)) ?? groups.find(one => !one.querySelector(":checked")) ?? groups[0];
  const inputs = [...group.querySelectorAll("input")];
  const digit = inputs[Number(event.key) - 1];
  if (!digit || event.repeat) return;
  event.preventDefault();
  digit.checked = true;
  const next = groups[groups.indexOf(group) + 1];
  (next ? next.querySelector(":checked") ?? next.querySelector("input") : byId("next")).focus({ preventScroll: true });
}

async function attempt(work) {
  try { await work(); } catch (error) { say(`That did not work: ${error.message}.`, true); }
}

function welcome() {
  session = undefined;
  show("start");
  say("");
}

byId("new").addEventListener("click", () => attempt(async () => {
  await open((await ask("/api/raters", "POST")).code);
  show("given");
  say("");
  byId("begin").focus();
}));
byId("resume").addEventListener("submit", event => {
  event.preventDefault();
  attempt(async () => { await open(byId("code").value.trim().toLowerCase()); await present(); });
});
byId("begin").addEventListener("click", () => attempt(present));
byId("back").addEventListener("click", () => { at -= 1; attempt(present); });
byId("review").addEventListener("click", () => { at = session.items.length - 1; attempt(present); });
byId("other").addEventListener("click", () => { localStorage.removeItem(KEY); byId("code").value = ""; welcome(); });
byId("form").addEventListener("submit", store);
addEventListener("keydown", press);
addEventListener("resize", fit);

const kept = localStorage.getItem(KEY);
if (kept) {
  try { await open(kept); await present(); } catch (error) {
    if (error.status === 404) localStorage.removeItem(KEY); // of another study at this address
    welcome();
    if (error.status !== 404) say(`That did not work: ${error.message}.`, true);
  }
} else welcome();
