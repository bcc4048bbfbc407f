// Sharpens 8-bit RGBA frames as clearcall.runtime.sharpener does, without DOM: for pages, workers and extensions.
// `ort` is onnxruntime-web, passed in by the caller.

const IDENTITY = 0; // the choice of no expert
const NOTHING = 128; // in residuals: nothing to add
const SMALLEST_SIDE = 32;
const DECAY = 0.8, LEAD = 0.2, SCORED_EVERY = 4, IDENTITY_PENALTY = 2; // see video_routing.py
const CRISP_AMOUNT = 0.3;
const CRISP_TAPS = [1, 14, 62, 102, 62, 14, 1]; // Gaussian of sigma 1 in 1/256, as OpenCV rounds it
const BLUE = 16384 / 9241, RED = 16384 / 11682;
const CHROMA_TO_RGB = [[0, RED], [-BLUE * 3735 / 19235, -RED * 9798 / 19235], [BLUE, 0]]; // of Cb, of Cr
const TAPS = [-3, 29, 111, -9]; // of the bicubic filter, in 1/128, for the first of two pixels
const METADATA = 14; // field of an ONNX model
const MAX_TABLES = 32; // of 64 KiB
const tables = new Map();

/** Return the metadata of an ONNX file as an object of strings. */
export function readMetadata(onnx) {
  const found = {}, text = new TextDecoder();
  for (const [number, value] of fields(onnx)) {
    if (number !== METADATA) continue;
    const entry = new Map(fields(value));
    found[text.decode(entry.get(1))] = text.decode(entry.get(2));
  }
  return found;
}

/** Yield number and value of each field of a protobuf message that holds bytes or integers. */
function* fields(message) {
  let at = 0;
  const varint = () => {
    let value = 0, scale = 1, byte;
    do {
      byte = message[at++];
      value += (byte & 127) * scale;
      scale *= 128;
    } while (byte > 127);
    return value;
  };
  while (at < message.length) {
    const tag = varint(), wire = tag & 7;
    if (wire === 0) yield [tag >>> 3, varint()];
    else if (wire === 2) {
      const length = varint();
      yield [tag >>> 3, message.subarray(at, at += length)];
    } else at += wire === 1 ? 8 : 4;
  }
}

/** Return in words what was done to a frame by an expert's name. */
export function describeExpert(expert, look) {
  if (expert !== "identity") return `expert ${expert}`;
  return look === "natural" ? "already sharp: left as it is" : "already sharp: crisp alone";
}

/** One network. Calls must not overlap: await one before the next. */
export class Sharpener {
  #ort;
  #session;
  #experts;
  #coded;
  #coloured;
  #stride;
  #steady = new SteadyChoice();
  #buffers = new Map();

  /** Load a network from the bytes of an ONNX file; throw an Error if it is not a luma network of clearcall's. */
  static async load(ort, onnx, options = {}) {
    const metadata = readMetadata(onnx), sharpener = new Sharpener();
    if (metadata["clearcall.kind"] !== "luma") throw new Error("not a luma network that clearcall exported");
    const names = key => JSON.parse(metadata[`clearcall.${key}`] || "[]");
    sharpener.#ort = ort;
    sharpener.#stride = Number(metadata["clearcall.stride"]);
    [sharpener.#experts, sharpener.#coded, sharpener.#coloured] = ["experts", "coded", "coloured"].map(names);
    sharpener.#session = await ort.InferenceSession.create(onnx, { executionProviders: ["wasm"], ...options });
    return sharpener;
  }

  /** The router's choices by name, the identity first; empty for a single network. */
  get experts() { return this.#experts; }

  /** Forget the frames of the last video. */
  beginVideo() { this.#steady = new SteadyChoice(); }

  /**
   * Return {data, expert}: the sharpened RGBA pixels, a new Uint8ClampedArray, alpha as it was.
   *
   * `strength` is from 0 to 2, `look` natural or crisp. With `video`, frames are those of one video, in order; `coded`:
   * they come from a video encoder; `expert`, a name, takes the router's place.
   */
  async sharpen(rgba, width, height, { strength = 1, look = "natural", coded = false, video = false, expert } = {}) {
    const padded = side => Math.max(SMALLEST_SIDE, Math.ceil(side / this.#stride) * this.#stride);
    const size = { width, height, columns: padded(width), rows: padded(height) };
    const luma = fillLuma(rgba, size, this.#kept("luma", size.columns * size.rows));
    const choice = await this.#choose(luma, size, { coded, video, expert });
    const isColoured = this.#coloured.includes(this.#experts[choice] ?? "itself");
    const isSilent = this.#experts.length && choice === IDENTITY;
    if (isSilent && look === "natural") return { data: rgba.slice(), expert: "identity" };
    const residual = this.#kept("residual", size.columns * size.rows, Uint8ClampedArray);
    let ofChroma = null, ofLuma = strength;
    if (isSilent) residual.fill(NOTHING);
    else {
      if (isColoured) fillChroma(rgba, size, this.#chroma(size));
      const { sub_pixels: output } = await this.#run(luma, size, choice);
      shuffle(output.data, size, this.#stride, residual);
      if (isColoured) {
        const planes = output.data.subarray(size.columns * size.rows);
        ofChroma = upscaledChroma(planes, size, strength, this.#kept("chroma_rgb", 3 * size.columns * size.rows));
      }
    }
    if (look === "crisp") {
      maskResidual(luma, residual, size, strength);
      ofLuma = 1;
    }
    return { data: add(rgba, residual, ofLuma, ofChroma, size), expert: this.#experts[choice] ?? null };
  }

  async #choose(luma, size, { coded, video, expert }) {
    if (!this.#experts.length) return IDENTITY;
    const fixed = this.#experts.indexOf(expert);
    if (fixed >= 0) return fixed;
    const score = async () => {
      const scores = Array.from((await this.#run(luma, size, IDENTITY)).scores.data);
      if (!coded || !this.#coded.length) return scores;
      return scores.map((value, index) => index === IDENTITY ? value - IDENTITY_PENALTY
        : this.#coded.includes(this.#experts[index]) ? value : -Infinity);
    };
    return video ? this.#steady.choose(score) : indexOfMax(await score());
  }

  #run(luma, { columns, rows }, choice) {
    const { Tensor } = this.#ort;
    const feeds = { luma: new Tensor("uint8", luma, [1, 1, rows, columns]) };
    if (this.#experts.length) feeds.expert = new Tensor("int64", BigInt64Array.of(BigInt(choice)), [1]);
    if (this.#coloured.length) {
      feeds.chroma = new Tensor("uint8", this.#chroma({ columns, rows }), [1, 2, rows / 2, columns / 2]);
    }
    return this.#session.run(feeds);
  }

  #chroma({ columns, rows }) { return this.#kept("chroma", columns * rows / 2); }

  /** Return the buffer of a name, allocated anew only for another size. */
  #kept(name, length, Kind = Uint8Array) {
    if (this.#buffers.get(name)?.length !== length) this.#buffers.set(name, new Kind(length));
    return this.#buffers.get(name);
  }
}

/** Turns the router's scores of a video's frames into choices; a change needs several frames that agree. */
class SteadyChoice {
  #mean = null;
  #choice = 0;
  #unscored = 0;

  async choose(score) {
    if (this.#unscored) {
      this.#unscored--;
      return this.#choice;
    }
    const scores = await score(), top = Math.max(...scores);
    const weights = scores.map(value => Math.exp(value - top)), sum = weights.reduce((a, b) => a + b);
    const odds = weights.map(value => value / sum), isFirst = this.#mean === null;
    this.#mean = isFirst ? odds : odds.map((value, index) => DECAY * this.#mean[index] + (1 - DECAY) * value);
    const best = indexOfMax(this.#mean);
    if (isFirst || this.#mean[best] - this.#mean[this.#choice] > LEAD) this.#choice = best;
    if (best === this.#choice && best === indexOfMax(odds)) this.#unscored = SCORED_EVERY - 1;
    return this.#choice;
  }
}

function indexOfMax(values) { return values.indexOf(Math.max(...values)); }

/** Write BT.601 luma in OpenCV's fixed point; the last row and column continue into the padding. */
function fillLuma(rgba, { width, height, columns, rows }, luma) {
  for (let y = 0, from = 0; y < height; y++) {
    let to = y * columns;
    for (const end = to + width; to < end; to++, from += 4) {
      luma[to] = (rgba[from] * 9798 + rgba[from + 1] * 19235 + rgba[from + 2] * 3735 + 16384) >> 15;
    }
    luma.fill(luma[to - 1], to, (y + 1) * columns);
  }
  for (let y = height; y < rows; y++) luma.copyWithin(y * columns, (height - 1) * columns, height * columns);
  return luma;
}

/** Write Cb and Cr of the means of 2 x 2 pixels. */
function fillChroma(rgba, { width, height, columns, rows }, chroma) {
  const half = columns / 2, plane = half * rows / 2;
  for (let y = 0, to = 0; y < rows; y += 2) {
    const upper = Math.min(y, height - 1) * width, lower = Math.min(y + 1, height - 1) * width;
    for (let x = 0; x < columns; x += 2, to++) {
      const left = Math.min(x, width - 1), right = Math.min(x + 1, width - 1);
      const a = 4 * (upper + left), b = 4 * (upper + right), c = 4 * (lower + left), d = 4 * (lower + right);
      const red = (rgba[a] + rgba[b] + rgba[c] + rgba[d] + 2) >> 2;
      const green = (rgba[a + 1] + rgba[b + 1] + rgba[c + 1] + rgba[d + 1] + 2) >> 2;
      const blue = (rgba[a + 2] + rgba[b + 2] + rgba[c + 2] + rgba[d + 2] + 2) >> 2;
      const luma = (red * 4899 + green * 9617 + blue * 1868 + 8192) >> 14;
      chroma[to] = clamped(((blue - luma) * 9241 + (NOTHING << 14) + 8192) >> 14);
      chroma[plane + to] = clamped(((red - luma) * 11682 + (NOTHING << 14) + 8192) >> 14);
    }
  }
}

function clamped(value) { return value < 0 ? 0 : value > 255 ? 255 : value; }

/**
 * Return a * alpha + b * beta + gamma of two 8-bit values as a table of 256 * a + b.
 *
 * In single precision, rounded half to even and clipped, as OpenCV's addWeighted: ties round alike.
 */
function addWeighted(alpha, beta, gamma) {
  const key = `${alpha} ${beta} ${gamma}`;
  if (!tables.has(key)) {
    if (tables.size === MAX_TABLES) tables.clear();
    const [ofA, ofB, more] = [alpha, beta, gamma].map(Math.fround);
    const sum = (_, index) => Math.fround((index >> 8) * ofA + Math.fround((index & 255) * ofB + more));
    tables.set(key, Uint8ClampedArray.from({ length: 65536 }, sum));
  }
  return tables.get(key);
}

/** Interleave the sub-pixels of blocks: channel `row * stride + column`. */
function shuffle(planes, { columns, rows }, stride, residual) {
  const across = columns / stride, plane = across * rows / stride;
  for (let y = 0; y < rows; y++) {
    const line = Math.floor(y / stride) * across;
    for (let column = 0; column < stride; column++) {
      let from = ((y % stride) * stride + column) * plane + line;
      const end = (y + 1) * columns;
      for (let to = y * columns + column; to < end; to += stride) residual[to] = planes[from++];
    }
  }
}

/** Return the residual of R, G and B for chroma, plus 128, interleaved and upscaled by 2 bilinearly. */
function upscaledChroma(planes, { columns, rows }, strength, out) {
  const across = columns / 2, down = rows / 2, count = across * down;
  const coarse = new Uint8Array(count);
  CHROMA_TO_RGB.forEach(([ofBlue, ofRed], channel) => {
    const [blue, red] = [ofBlue * strength, ofRed * strength];
    const sum = addWeighted(blue, red, NOTHING * (1 - blue - red));
    for (let index = 0; index < count; index++) coarse[index] = sum[planes[index] << 8 | planes[count + index]];
    for (let y = 0; y < rows; y++) {
      const near = (y >> 1) * across, far = Math.min(Math.max((y >> 1) + (y % 2 ? 1 : -1), 0), down - 1) * across;
      for (let x = 0, to = 3 * y * columns + channel; x < across; x++, to += 6) {
        const left = x ? x - 1 : x, right = x + 1 < across ? x + 1 : x;
        const here = 3 * coarse[near + x], beyond = 3 * coarse[far + x];
        // Shifted one by one, as OpenCV does.
        out[to] = ((3 * (here + coarse[near + left]) >> 2) + (beyond + coarse[far + left] >> 2) + 2) >> 2;
        out[to + 3] = ((3 * (here + coarse[near + right]) >> 2) + (beyond + coarse[far + right] >> 2) + 2) >> 2;
      }
    }
  });
  return out;
}

/** Turn the luma residual into that of network and unsharp mask together. */
function maskResidual(luma, residual, { width, height, columns }, strength) {
  const sharp = new Uint8Array(width * height), blurred = new Uint16Array(width * height);
  const sharpened = addWeighted(1, strength, -NOTHING * strength);
  const masked = addWeighted(1 + CRISP_AMOUNT, -CRISP_AMOUNT, 0), differs = addWeighted(1, -1, NOTHING);
  for (let y = 0, to = 0; y < height; y++) {
    for (let from = y * columns, end = from + width; from < end; from++, to++) {
      sharp[to] = sharpened[luma[from] << 8 | residual[from]];
    }
  }
  const reach = CRISP_TAPS.length - 1, [far, mid, near, centre] = CRISP_TAPS;
  const places = side => Int32Array.from({ length: side + reach }, (_, at) => reflected(at - reach / 2, side));
  const across = places(width), down = places(height), row = new Uint8Array(width + reach);
  for (let y = 0, to = 0; y < height; y++) {
    for (let x = 0; x < row.length; x++) row[x] = sharp[y * width + across[x]];
    for (let x = 0; x < width; x++, to++) {
      blurred[to] = far * (row[x] + row[x + 6]) + mid * (row[x + 1] + row[x + 5]) + near * (row[x + 2] + row[x + 4])
        + centre * row[x + 3];
    }
  }
  for (let y = 0; y < height; y++) {
    const [a, b, c, d, e, f, g] = down.subarray(y, y + reach + 1).map(line => line * width);
    for (let x = 0, from = y * columns, at = y * width; x < width; x++, from++, at++) {
      const sum = far * (blurred[a + x] + blurred[g + x]) + mid * (blurred[b + x] + blurred[f + x])
        + near * (blurred[c + x] + blurred[e + x]) + centre * blurred[d + x];
      residual[from] = differs[masked[sharp[at] << 8 | (sum + 32768) >> 16] << 8 | luma[from]];
    }
  }
}

/** Return a position mirrored into a side, whose border pixel is not repeated. */
function reflected(at, side) {
  if (side === 1) return 0;
  const period = 2 * side - 2, within = ((at % period) + period) % period;
  return within < side ? within : period - within;
}

/** Return frame + strength * (residual - 128), with the residual of chroma if there is one. */
function add(rgba, residual, strength, ofChroma, { width, height, columns }) {
  const out = new Uint8ClampedArray(rgba.length), none = -NOTHING * strength;
  const sum = ofChroma ? addWeighted(1, 1, -NOTHING) : addWeighted(1, strength, none);
  const both = addWeighted(strength, 1, none);
  for (let y = 0, to = 0; y < height; y++) {
    let from = y * columns;
    for (const end = from + width; from < end; from++, to += 4) {
      const ofLuma = residual[from];
      let [red, green, blue] = [ofLuma, ofLuma, ofLuma];
      if (ofChroma) {
        red = both[ofLuma << 8 | ofChroma[3 * from]];
        green = both[ofLuma << 8 | ofChroma[3 * from + 1]];
        blue = both[ofLuma << 8 | ofChroma[3 * from + 2]];
      }
      out[to] = sum[rgba[to] << 8 | red];
      out[to + 1] = sum[rgba[to + 1] << 8 | green];
      out[to + 2] = sum[rgba[to + 2] << 8 | blue];
      out[to + 3] = rgba[to + 3];
    }
  }
  return out;
}

/** Return RGBA pixels upscaled by 2 with the bicubic filter of training (a = -0.5, weights renormalized at borders). */
export function enlarged(rgba, width, height) {
  const out = new Uint8ClampedArray(4 * rgba.length).fill(255), row = new Float32Array(4 * width);
  const across = taps(width), down = taps(height), [w0, w1, w2, w3] = TAPS.map(tap => tap / 128);
  const channels = isOpaque(rgba) ? 3 : 4, border = Math.min(4, 2 * width);
  const one = (x, channel) => [0, 1, 2, 3].reduce(
    (sum, tap) => sum + across.weights[4 * x + tap] * row[4 * across.places[4 * x + tap] + channel], 0);
  for (let y = 0; y < 2 * height; y++) {
    const [a, b, c, d] = down.places.subarray(4 * y, 4 * y + 4).map(line => 4 * width * line);
    const [wa, wb, wc, wd] = down.weights.subarray(4 * y, 4 * y + 4);
    for (let x = 0; x < row.length; x++) {
      row[x] = wa * rgba[a + x] + wb * rgba[b + x] + wc * rgba[c + x] + wd * rgba[d + x];
    }
    for (let channel = 0; channel < channels; channel++) {
      const start = 8 * width * y + channel, last = 2 * width - border;
      for (let x = 0; x < border; x++) {
        out[start + 4 * x] = one(x, channel);
        out[start + 4 * (last + x)] = one(last + x, channel);
      }
      // Between the borders five pixels make two; written out, this takes half the time.
      let p = row[channel], q = row[4 + channel], r = row[8 + channel], s = row[12 + channel];
      for (let to = start + 16, from = 16 + channel; from < row.length; from += 4, to += 8) {
        const t = row[from];
        out[to] = w0 * p + w1 * q + w2 * r + w3 * s;
        out[to + 4] = w3 * q + w2 * r + w1 * s + w0 * t;
        p = q;
        q = r;
        r = s;
        s = t;
      }
    }
  }
  return out;
}

function isOpaque(rgba) {
  for (let at = 3; at < rgba.length; at += 4) if (rgba[at] !== 255) return false;
  return true;
}

/** Return places and weights of the four source pixels of each of 2 * side pixels. */
function taps(side) {
  const places = new Int32Array(8 * side), weights = new Float32Array(8 * side);
  for (let at = 0; at < 2 * side; at++) {
    const first = (at >> 1) - 2 + at % 2;
    const isInside = tap => first + tap >= 0 && first + tap < side;
    const inside = (at % 2 ? TAPS.toReversed() : TAPS).map((weight, tap) => isInside(tap) ? weight : 0);
    const sum = inside.reduce((a, b) => a + b);
    inside.forEach((weight, tap) => {
      places[4 * at + tap] = Math.min(Math.max(first + tap, 0), side - 1);
      weights[4 * at + tap] = weight / sum;
    });
  }
  return { places, weights };
}
