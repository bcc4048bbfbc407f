// Sharpens frames off the page's thread. A message is {id, model, source, coded, video, strength, look, enlarge}.
// `source` is an ImageBitmap, or absent to load the model alone; `video` numbers a video, 0 is an image.
import * as ort from "./vendor/ort.wasm.min.mjs";
import { Sharpener, enlarged } from "./sharpen.js";

const MAX_THREADS = 4;
const models = new Map(), playing = new WeakMap(); // networks by name; the video of each
let pixels = null;

ort.env.wasm.wasmPaths = new URL("vendor/", import.meta.url).href;
// Threads need shared memory, which a page has only if its server isolates it from others.
ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, MAX_THREADS) : 1;

async function load(name) {
  const response = await fetch(new URL(`models/${name}.onnx`, import.meta.url));
  if (!response.ok) throw new Error(`the network ${name} cannot be loaded (${response.status})`);
  return Sharpener.load(ort, new Uint8Array(await response.arrayBuffer()));
}

function model(name) {
  if (!models.has(name)) {
    const loading = load(name);
    loading.catch(() => models.delete(name));
    models.set(name, loading);
  }
  return models.get(name);
}

function read(bitmap) {
  const { width, height } = bitmap;
  if (pixels?.canvas.width !== width || pixels.canvas.height !== height) {
    pixels = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  }
  pixels.clearRect(0, 0, width, height);
  pixels.drawImage(bitmap, 0, 0);
  bitmap.close();
  return pixels.getImageData(0, 0, width, height).data;
}

async function answer({ id, source, enlarge, ...options }) {
  const sharpener = await model(options.model);
  if (!source) return { id };
  let { width, height } = source, before = read(source);
  if (enlarge) {
    before = enlarged(before, width, height);
    [width, height] = [2 * width, 2 * height];
    if (!options.video) options.expert = "bicubic_x2.0"; // how it was degraded is known
  }
  if (playing.get(sharpener) !== options.video) sharpener.beginVideo();
  playing.set(sharpener, options.video);
  const { data, expert } = await sharpener.sharpen(before, width, height, options);
  return { id, width, height, before, after: data, expert };
}

let last = Promise.resolve();
self.addEventListener("message", ({ data }) => {
  last = last.then(() => answer(data)).then(
    result => self.postMessage(result, result.after ? [result.before.buffer, result.after.buffer] : []),
    error => self.postMessage({ id: data.id, error: String(error.message ?? error) }),
  );
});
