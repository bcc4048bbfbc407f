// Saves sharpened videos as files, encoded by the browser itself (WebCodecs): a file's frames, or the camera's.

import {
  BlobSource, BufferTarget, CanvasSource, Conversion, Input, MATROSKA, MP4, Mp4OutputFormat, Output, QTFF, Quality, WEBM,
  WebMOutputFormat, getFirstEncodableVideoCodec,
} from "./vendor/mediabunny.min.mjs";

// Above the scale of 0 to 1: the loss of H.264 is then that of CRF 18, by which `clearcall sharpen` encodes.
const QUALITY = new Quality(1.25);
const NO_ENCODER = "this browser cannot encode it; a page without HTTPS may not, either";

/**
 * Return {blob, suffix, isSilent}: a video file with each of its frames replaced by the canvas that `process` returns.
 *
 * WebM stays WebM, all else becomes MP4. Times are kept and sound is copied; `isSilent` if its sound could not be kept.
 * `scale` is the size of the canvas relative to a frame. Throws if `signal` aborts it.
 */
export async function convert(file, process, { scale, onProgress, signal }) {
  const input = new Input({ source: new BlobSource(file), formats: [MP4, QTFF, WEBM, MATROSKA] });
  const output = newOutput(await input.getFormat() === WEBM ? new WebMOutputFormat() : new Mp4OutputFormat());
  const track = await input.getPrimaryVideoTrack();
  const conversion = await Conversion.init({
    input, output, tracks: "primary", showWarnings: false,
    copy: { shiftTolerance: Infinity }, // sound that begins before the first frame is copied too
    video: {
      quality: QUALITY, fit: "contain", process: sample => process(sample.toCanvasImageSource()),
      processedWidth: scale * await track.getDisplayWidth(), processedHeight: scale * await track.getDisplayHeight(),
    },
  });
  if (!conversion.utilizedTracks.some(one => one.isVideoTrack())) throw new Error(NO_ENCODER);
  signal.throwIfAborted();
  signal.addEventListener("abort", () => conversion.cancel());
  conversion.onProgress = onProgress;
  await conversion.execute();
  return { ...content(output), isSilent: conversion.discardedTracks.some(({ track: one }) => one.isAudioTrack()) };
}

/**
 * Return {blob, suffix}: an MP4 of what a canvas showed until `signal` aborts it.
 *
 * `begin` is given a function that adds the canvas as it is, with its time in ms.
 */
export async function record(canvas, signal, begin) {
  const format = new Mp4OutputFormat(), output = newOutput(format), { width, height } = canvas;
  const codec = await getFirstEncodableVideoCodec(format.getSupportedVideoCodecs(), { width, height, quality: QUALITY });
  if (!codec) throw new Error(NO_ENCODER);
  const source = new CanvasSource(canvas, { codec, quality: QUALITY, sizeChangeBehavior: "contain" });
  output.addVideoTrack(source);
  await output.start();
  let first = null, last = null;
  try {
    await new Promise((resolve, reject) => {
      begin(now => {
        first ??= now;
        source.add((now - first) / 1000, (now - (last ?? now)) / 1000).catch(reject);
        last = now;
      });
      signal.addEventListener("abort", resolve);
      if (signal.aborted) resolve();
    });
    if (first === null) throw new Error("it showed no frame");
    await output.finalize();
  } catch (error) {
    output.cancel(); // lets go of the encoder
    throw error;
  }
  return content(output);
}

function newOutput(format) { return new Output({ format, target: new BufferTarget() }); }

function content({ format, target }) {
  return { blob: new Blob([target.buffer], { type: format.mimeType }), suffix: format.fileExtension };
}
