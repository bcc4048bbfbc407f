// A hidden frame in the page that owns the worker: the page's content security policy does not reach it.
// The parent sends one port; over it come {id, pixels, width, height, ...options} of worker.js, `pixels` an ArrayBuffer.

const worker = new Worker("worker.js", { type: "module" });
let port = null;

addEventListener("message", ({ source, ports }) => {
  if (port || source !== parent || !ports.length) return;
  [port] = ports;
  port.onmessage = async ({ data: { pixels, width, height, ...options } }) => {
    const image = pixels && await createImageBitmap(new ImageData(new Uint8ClampedArray(pixels), width, height));
    worker.postMessage({ ...options, source: image }, image ? [image] : []);
  };
});
worker.addEventListener("message", ({ data: { before, ...result } }) => {
  port.postMessage(result, result.after ? [result.after.buffer] : []);
});
worker.addEventListener("error", () => port?.postMessage({ id: 0, error: "the network cannot be loaded" }));
