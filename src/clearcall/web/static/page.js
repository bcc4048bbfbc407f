// The page: takes an image, a video or the camera, and shows each frame before and after, side by side at a divider.

import { describeExpert } from "./sharpen.js";

const MAX_PIXELS = 2 ** 24; // of a result; more do not fit the memory of a browser's tab
const PRESETS = {
  call: { model: "fast", strength: 1, look: "natural", enlarge: "" },
  photo: { model: "best", strength: 1, look: "natural", enlarge: "" },
  small: { model: "best", strength: 1, look: "natural", enlarge: "2" },
};
const RATE_WINDOW_MS = 2000;
const SAVE_LABELS = { video: ["Save video", "Stop saving"], camera: ["Record", "Stop and save"] };

const $ = id => document.getElementById(id);
const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
const video = Object.assign(document.createElement("video"), { muted: true, loop: true, playsInline: true });
const canvases = [$("before"), $("after")];
const inputs = ["model", "look", "enlarge", "strength"];

let shown = null; // what is sharpened: {kind: "image" | "video" | "camera", name, source, number, file}
let saving = null; // what is saved of it: {isFile, stop, add}
let busy = false, stale = false, requested = 0, videos = 0, at = 50;
let dropped = 0, times = [], turn = 0; // `turn` numbers the inputs: of two opened in a row, the last one counts
const waiting = new Map(); // for answers of the worker, by number

// ---- sharpening

/** Send the worker a message and return its answer; throw an Error with what it says went wrong. */
function ask(message, transfer = []) {
  const id = ++requested;
  return new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject });
    worker.postMessage({ id, ...message }, transfer);
  });
}

worker.addEventListener("message", ({ data }) => {
  const { resolve, reject } = waiting.get(data.id);
  waiting.delete(data.id);
  if (data.error) reject(new Error(data.error));
  else resolve(data);
});
worker.addEventListener("error", event => {
  event.preventDefault();
  say("The network cannot be loaded: this browser is too old, or `make web` was not run.", true);
});

function scale() { return $("enlarge").value ? 2 : 1; }

/** Return what the worker makes of an image, or of the next frame of the video that has this number. */
async function sharpened(source, number, isCoded) {
  const bitmap = await createImageBitmap(source), pixels = bitmap.width * bitmap.height * scale() ** 2;
  if (pixels > MAX_PIXELS) {
    throw new Error(`a result of ${(pixels / 1e6).toFixed(1)} megapixels is too large: the limit is 16.7`);
  }
  return ask({
    source: bitmap, video: number, coded: isCoded, model: $("model").value, look: $("look").value,
    strength: Number($("strength").value), enlarge: scale() > 1,
  }, [bitmap]);
}

/** Sharpen what is shown now; while a frame is in work, only note that the result will be out of date. */
async function refresh() {
  if (!shown) return;
  if (busy || saving?.isFile) {
    stale = true;
    return;
  }
  [busy, stale] = [true, false];
  const owner = shown, { kind, name, source, number } = owner, began = performance.now();
  if (kind === "image") say(`Sharpening ${name} …`);
  const result = await sharpened(source, number, kind === "video").catch(error => {
    // While a video starts again, it has no frame for a moment.
    const isPassing = kind !== "image" && error.name === "InvalidStateError";
    if (!isPassing && shown === owner) refuse(`${name} cannot be sharpened: ${error.message}`);
  });
  busy = false;
  const latency = performance.now() - began;
  if (stale) refresh(); // before the drawing: the worker need not wait for it
  if (!result || shown !== owner || saving?.isFile) return;
  show(result, latency);
  saving?.add?.(began);
}

function show({ width, height, before, after, expert }, latency) {
  canvases.forEach((canvas, index) => {
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    canvas.getContext("2d").putImageData(new ImageData(index ? after : before, width, height), 0, 0);
  });
  $("result").hidden = false;
  $("result").style.setProperty("--width", width);
  $("result").style.setProperty("--height", height);
  const now = performance.now();
  const parts = [`${width}x${height}`, `${Math.round(latency)} ms`];
  if (shown.kind !== "image") {
    times = [...times.filter(time => now - time < RATE_WINDOW_MS), now];
    const rate = times.length > 1 ? 1000 * (times.length - 1) / (now - times[0]) : 0;
    parts.splice(1, 0, `${rate.toFixed(1)} fps`);
    parts.push(saving?.isFile ? `${Math.floor(100 * $("progress").value)} % saved` : `${dropped} frames dropped`);
  }
  $("details").textContent = [...parts, describeExpert(expert, $("look").value)].join(", ");
  if (shown.kind === "image" || !shown.isAnnounced) {
    const done = expert === "identity" ? "already sharp" : "sharpened";
    say(`${shown.name} is ${shown.kind === "image" ? done : "being sharpened"}.`);
    shown.isAnnounced = true;
  }
  place();
}

/** Sharpen the newest frame of the video whenever none is in work: frames are dropped, never queued. */
function watch() {
  const owner = shown;
  const next = video.requestVideoFrameCallback ? tick => video.requestVideoFrameCallback(tick)
    : tick => requestAnimationFrame(tick);
  const tick = () => {
    if (shown !== owner) return;
    if (busy && stale) dropped++;
    refresh();
    $("seek").value = video.currentTime / video.duration || 0;
    next(tick);
  };
  next(tick);
}

// ---- inputs

function take(kind, name, source, file) {
  [dropped, times] = [0, []];
  shown = { kind, name, source, file, number: kind === "image" ? 0 : ++videos };
  arrange();
  if (kind !== "image") watch();
  refresh();
}

/** Let go of the input, and return the number of the next one. */
function release() {
  shown = null;
  saving?.stop();
  video.pause();
  video.srcObject?.getTracks().forEach(track => track.stop());
  if (video.src) URL.revokeObjectURL(video.src);
  video.srcObject = null;
  video.removeAttribute("src");
  arrange();
  return ++turn;
}

/** Show the buttons that go with what is shown and saved; what is saved is of one size and look. */
function arrange() {
  const kind = shown?.kind, isSaved = Boolean(saving);
  $("player").hidden = kind !== "video" || isSaved;
  $("stop").hidden = kind !== "camera";
  $("save").hidden = !(kind in SAVE_LABELS);
  $("save").textContent = SAVE_LABELS[kind]?.[Number(isSaved)] ?? "";
  $("progress").hidden = !saving?.isFile;
  for (const one of [...inputs.map($), ...document.querySelectorAll("[name=preset]")]) one.disabled = isSaved;
}

function refuse(text) {
  release();
  $("result").hidden = true;
  say(text, true);
}

async function open(file) {
  const mine = release();
  say(`Reading ${file.name} …`);
  const image = file.type.startsWith("video/") ? null : await createImageBitmap(file).catch(() => null);
  if (mine !== turn) return;
  if (image) {
    take("image", file.name, image);
    return;
  }
  try {
    if (!file.size || file.type.startsWith("image/")) throw new Error("no video");
    video.src = URL.createObjectURL(file);
    await started();
  } catch {
    if (mine === turn) refuse(`${file.name} cannot be read: it is no image or video that this browser can decode.`);
    return;
  }
  if (mine === turn) take("video", file.name, video, file);
}

/** Wait for the first frame of the video element; throw if there is none. */
async function started() {
  await new Promise((resolve, reject) => {
    video.onloadeddata = resolve;
    video.onerror = reject;
    video.load();
  });
  if (!video.videoWidth) throw new Error("no picture");
  await video.play();
}

async function openCamera() {
  const mine = release();
  try {
    if (!navigator.mediaDevices) throw new Error("this address may not use the camera");
    const wanted = { width: { ideal: 640 }, height: { ideal: 360 } };
    const stream = await navigator.mediaDevices.getUserMedia({ video: wanted }), [track] = stream.getTracks();
    if (mine !== turn) {
      track.stop();
      return;
    }
    track.addEventListener("ended", () => { if (mine === turn) refuse("The camera has stopped."); });
    video.srcObject = stream;
    await started();
  } catch (error) {
    if (mine === turn) refuse(`The camera cannot be used: ${error.message}`);
    return;
  }
  if (mine === turn) take("camera", "The camera", video);
}

$("choose").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => {
  if ($("file").files.length) open($("file").files[0]);
  $("file").value = "";
});
$("camera").addEventListener("click", openCamera);
$("stop").addEventListener("click", () => {
  release();
  say("The camera is off.");
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, event => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files.length) open(event.dataTransfer.files[0]);
  });
}

// ---- options

function apply(preset) {
  for (const [id, value] of Object.entries(PRESETS[preset])) $(id).value = value;
}

$("options").addEventListener("input", ({ target }) => {
  if (target.name === "preset") apply(target.value);
  else if (inputs.includes(target.id)) {
    document.querySelectorAll("[name=preset]").forEach(one => { one.checked = false; });
  }
  $("strength-value").textContent = Number($("strength").value).toFixed(1);
  if (target.id === "zoom") resize();
  else if (shown) refresh();
});
$("options").addEventListener("submit", event => event.preventDefault());

// ---- view

function resize() {
  const zoom = Number($("zoom").value), view = $("view");
  const x = (view.scrollLeft + view.clientWidth / 2) / view.scrollWidth; // of the centre, which stays
  const y = (view.scrollTop + view.clientHeight / 2) / view.scrollHeight;
  $("frame").classList.toggle("fit", zoom === 0);
  $("pair").style.setProperty("--zoom", zoom);
  view.scrollTo(x * view.scrollWidth - view.clientWidth / 2, y * view.scrollHeight - view.clientHeight / 2);
  place();
}

/** Put the divider at `at` percent of the view, whatever part of the image is scrolled to. */
function place() {
  const { scrollLeft, clientWidth } = $("view");
  $("pair").style.setProperty("--cut", `${scrollLeft + clientWidth * at / 100}px`);
  $("divider").style.setProperty("--at", at);
  $("divider").setAttribute("aria-valuenow", Math.round(at));
  $("divider").setAttribute("aria-valuetext", `${Math.round(at)} % before`);
}

function move(to) {
  at = Math.min(Math.max(to, 0), 100);
  place();
}

$("divider").addEventListener("keydown", event => {
  const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 };
  const to = { Home: 0, End: 100 }[event.key] ?? (event.key in steps ? at + steps[event.key] : null);
  if (to === null) return;
  event.preventDefault();
  move(to);
});
$("divider").addEventListener("pointerdown", event => $("divider").setPointerCapture(event.pointerId));
$("divider").addEventListener("pointermove", event => {
  if (!$("divider").hasPointerCapture(event.pointerId)) return;
  const { left } = $("view").getBoundingClientRect();
  move(100 * (event.clientX - left) / $("view").clientWidth);
});
$("view").addEventListener("scroll", place);
new ResizeObserver(place).observe($("view"));

// ---- saving

/** Save all of a video file, or the camera until it is stopped; of a file that is stopped nothing is saved. */
async function save() {
  const owner = shown, { kind, name } = owner, stopped = new AbortController(), isFile = kind === "video";
  saving = { isFile, stop: () => stopped.abort() };
  if (isFile) video.pause();
  $("progress").value = 0;
  times = [];
  arrange();
  say(isFile ? `Saving ${name} …` : "Recording …");
  const tell = (...said) => { if (shown === owner) say(...said); };
  try {
    const { convert, record } = await import("./save.js");
    const made = isFile ? await convert(owner.file, frameOf(owner), {
      scale: scale(), signal: stopped.signal, onProgress: part => { $("progress").value = part; },
    }) : await record(canvases[1], stopped.signal, add => { saving.add = add; });
    download(made.blob, name, made.suffix);
    tell(made.isSilent ? `${name} is saved without its sound, which this browser cannot keep.` : `${name} is saved.`);
  } catch (error) {
    if (isFile && stopped.signal.aborted) tell(`${name} is not saved.`);
    else tell(`${name} cannot be saved: ${error.message}`, true);
  } finally {
    saving = null;
    times = [];
    arrange();
    if (isFile) refresh();
  }
}

/** Return a function that sharpens and shows the next frame of a file that is saved, and returns its canvas. */
function frameOf(owner) {
  const number = ++videos;
  return async frame => {
    const began = performance.now(), result = await sharpened(frame, number, true);
    if (shown === owner) show(result, performance.now() - began);
    return canvases[1];
  };
}

$("save").addEventListener("click", () => saving ? saving.stop() : save());
window.addEventListener("beforeunload", event => { if (saving) event.preventDefault(); });

// ---- player, download, status

$("play").addEventListener("click", () => video.paused ? video.play() : video.pause());
for (const kind of ["play", "pause"]) {
  video.addEventListener(kind, () => { $("play").textContent = video.paused ? "Play" : "Pause"; });
}
$("seek").addEventListener("input", () => { video.currentTime = $("seek").value * video.duration; });
video.addEventListener("seeked", () => { if (shown?.kind === "video") refresh(); });
$("mute").addEventListener("click", () => {
  video.muted = !video.muted;
  $("mute").setAttribute("aria-pressed", video.muted);
});
$("download").addEventListener("click", () => {
  const { name } = shown ?? { name: "image" };
  canvases[1].toBlob(blob => download(blob, name, ".png"));
});

/** Hand the user a file that is named after what was sharpened. */
function download(blob, name, suffix) {
  const link = document.createElement("a"), href = URL.createObjectURL(blob);
  Object.assign(link, { href, download: `${name.replace(/\.[^.]*$/, "")}-sharp${suffix}` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(href), 10_000);
}

function say(text, isAlert = false) {
  $("status").textContent = text;
  $("status").classList.toggle("alert", isAlert);
}

apply("call");
ask({ model: $("model").value }).then(
  () => { if (!shown) say("Ready."); },
  error => { if (!shown) say(`The network cannot be loaded: ${error.message}`, true); },
);
