// Lays a canvas of sharpened frames over each visible video of the page. Runs in an isolated world, once a document.
// One frame is in work at a time, always the newest; a late result is dropped, and the page's own video shows through.

(() => {
  if (globalThis.clearcall) return;
  const api = globalThis.browser ?? globalThis.chrome;
  const DEFAULTS = { strength: 1, look: "natural", model: "fast", off: [] };
  const MAX_PIXELS = 1280 * 720;
  const MAX_LAG = 1; // frames that a result may be behind the video
  const MIN_FPS = 10, WINDOW_MS = 2000, TRIAL_MS = 1000, PAUSE_MS = 30_000, SCAN_MS = 500;
  const LOAD_MS = 20_000; // until a network or a result is given up
  const BEGIN_SHARE = 0.9, LEAST_SHARE = 0.8; // of the video's frames, those that have a result in time
  const COPIED = ["objectFit", "objectPosition", "transform", "transformOrigin", "translate", "rotate", "scale",
    "borderRadius", "zIndex", "opacity", "filter", "clipPath", "visibility"];

  const videos = new Map(); // of each video element, its View
  let settings = null, engine = null, failure = "", busy = null, numbered = 0, reader = null;

  /** A video and its canvas. */
  class View {
    id = ++numbered;
    canvas = null;
    seen = 0; // frames of the video that the page was told of: those between two repaints count as one
    done = 0; // the frame of the last result in time
    waits = 0; // since when a frame waits for the worker; all times are in ms
    reason = "";

    constructor(video) {
      this.video = video;
      const tick = () => {
        if (videos.get(video) !== this) return;
        video.requestVideoFrameCallback(tick);
        this.seen++;
        const isCovered = this.seen - this.done <= MAX_LAG;
        this.presented.push({ time: performance.now(), isCovered });
        if (!isCovered) this.clear();
        this.waits ||= performance.now();
        send();
      };
      video.requestVideoFrameCallback(tick);
      this.observer = new ResizeObserver(() => this.place());
      this.observer.observe(video);
      this.listening = new AbortController();
      for (const kind of ["emptied", "loadeddata", "resize", "seeking"]) {
        video.addEventListener(kind, () => this.restart(), { signal: this.listening.signal });
      }
      this.restart();
    }

    /** Begin anew: another video, another size or other settings. */
    restart() {
      this.clear();
      this.since = 0; // the first result
      this.until = 0; // the end of a pause
      this.isSteady = false; // whether results are shown: a trial comes first, lest the canvas flickers
      this.times = []; // of results in time
      this.presented = []; // the video's own frames
      this.late = 0;
      this.done = -MAX_LAG - 1;
      this.reason = "";
      this.waits = performance.now();
      send();
    }

    /** Say why the video is left alone; an empty text if it is not. */
    obstacle() {
      const { video } = this, { width, height, top, left, bottom, right } = video.getBoundingClientRect();
      if (video.readyState < 2 || !video.videoWidth) return "has no picture yet";
      if (video.mediaKeys) return "protected (DRM): cannot be read";
      if (video.videoWidth * video.videoHeight > MAX_PIXELS) return "larger than 1280x720: left alone";
      if (document.fullscreenElement === video || document.pictureInPictureElement === video) {
        return "in a window of its own: left alone";
      }
      const isSeen = width * height > 0 && bottom > 0 && right > 0 && top < innerHeight && left < innerWidth;
      return isSeen && video.checkVisibility({ visibilityProperty: true }) ? "" : "not visible";
    }

    /** Return the pixels of the current frame, or null, with the reason, if they may not be read. */
    read() {
      const { videoWidth: width, videoHeight: height } = this.video;
      if (reader?.canvas.width !== width || reader.canvas.height !== height) {
        reader = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
      }
      try {
        reader.drawImage(this.video, 0, 0, width, height);
        return reader.getImageData(0, 0, width, height).data;
      } catch (error) {
        reader = null; // tainted for good
        this.until = Infinity;
        this.reason = error.name === "SecurityError" ? "from another site that does not let it be read"
          : `cannot be read: ${error.message}`;
        return null;
      }
    }

    /** Whether frames come from a video encoder: not those of a camera or canvas of this page. */
    get coded() {
      const track = this.video.srcObject?.getVideoTracks?.()[0];
      return !track || !("canvas" in track || track.getSettings().groupId);
    }

    show({ width, height, after, expert }, frame) {
      const now = performance.now();
      this.since ||= now;
      this.expert = expert;
      this.size = `${width}x${height}`;
      if (this.seen - frame > MAX_LAG) {
        this.late++;
        return;
      }
      this.times.push(now);
      this.done = frame;
      if (!this.isSteady) return;
      if (expert === "identity" && settings.look === "natural") {
        this.clear();
        return;
      }
      if (this.canvas?.previousSibling !== this.video) {
        this.canvas ??= Object.assign(document.createElement("canvas"), { ariaHidden: "true" });
        this.canvas.dataset.clearcall = "";
        this.video.after(this.canvas);
      }
      if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
      this.canvas.getContext("2d").putImageData(new ImageData(after, width, height), 0, 0);
      this.isShown = true;
      this.place();
    }

    place() {
      if (!this.canvas?.isConnected) return;
      const { video, canvas: { style } } = this, own = getComputedStyle(video);
      const isCovering = video.controls && video.matches(":hover"); // the browser's own controls
      const wanted = {
        position: own.position === "fixed" ? "fixed" : "absolute", pointerEvents: "none", margin: "0", maxWidth: "none", maxHeight: "none", minWidth: "0",
        width: `${video.clientWidth}px`, height: `${video.clientHeight}px`, minHeight: "0",
        display: isCovering || !this.isShown ? "none" : "block",
      };
      for (const name of COPIED) wanted[name] = own[name];
      for (const [name, value] of Object.entries(wanted)) if (style[name] !== value) style[name] = value;
      if (style.display === "none") return;
      style.left ||= style.top ||= "0px";
      // Offsets may count from elsewhere than `left` and `top` do, but alike for both elements, and without transforms.
      const x = video.offsetLeft + video.clientLeft - this.canvas.offsetLeft;
      const y = video.offsetTop + video.clientTop - this.canvas.offsetTop;
      if (x) style.left = `${parseFloat(style.left) + x}px`;
      if (y) style.top = `${parseFloat(style.top) + y}px`;
    }

    clear() {
      this.isShown = false;
      if (this.canvas) this.canvas.style.display = "none";
    }

    /** Show the results of a video that keeps up, and pause one that does not. */
    check(now) {
      this.times = this.times.filter(time => now - time < WINDOW_MS);
      this.presented = this.presented.filter(({ time }) => now - time < WINDOW_MS && time > this.since);
      if (this.until && now > this.until) this.restart();
      if (this.until || !this.since || now - this.since < TRIAL_MS) return;
      const { length } = this.presented, age = Math.min(now - this.since, WINDOW_MS) / 1000;
      const share = length ? this.presented.filter(one => one.isCovered).length / length : 1;
      const isFast = length / age < MIN_FPS || this.times.length / age >= MIN_FPS; // a slow video is no fault
      if (isFast && share >= (this.isSteady ? LEAST_SHARE : BEGIN_SHARE)) {
        if (!this.isSteady) this.waits = now; // a video that stands still has no other frame
        this.isSteady = true;
      } else if (this.isSteady || now - this.since > 2 * WINDOW_MS) {
        this.until = now + PAUSE_MS;
        this.reason = isFast ? `paused: only ${Math.round(100 * share)} % of the frames are ready in time`
          : `paused: ${(this.times.length / age).toFixed(1)} frames a second are ready in time, ${MIN_FPS} are needed`;
        this.clear();
      }
    }

    get fps() { return 1000 * this.times.length / WINDOW_MS; }

    state() {
      const { expert, latency, late, fps, size, reason, isSteady } = this;
      return { expert, latency, late, fps, size, reason: failure || reason, isSteady, isLoaded: Boolean(engine?.ready) };
    }

    remove() {
      this.canvas?.remove();
      this.observer.disconnect();
      this.listening.abort();
    }
  }

  /** Sharpen the current frame of the video that has waited longest, if the worker is free. */
  function send() {
    if (!engine?.ready || busy) return;
    const waiting = [...videos.values()].filter(view => view.waits).sort((a, b) => a.waits - b.waits);
    for (const view of waiting) {
      view.waits = 0;
      if (view.until) continue;
      view.reason = view.obstacle();
      if (view.reason) {
        view.clear();
        continue;
      }
      const pixels = view.read();
      if (!pixels) continue;
      const { model, look, strength } = settings, { videoWidth: width, videoHeight: height } = view.video;
      busy = { view, frame: view.seen, began: performance.now(), id: ++numbered };
      engine.port.postMessage({
        id: busy.id, pixels: pixels.buffer, width, height, video: view.id, coded: view.coded, model, look, strength,
      }, [pixels.buffer]);
      return;
    }
  }

  function receive({ data }) {
    if (data.id === 0) {
      failure = data.error ?? "";
      engine.ready = !data.error;
      send();
      return;
    }
    if (data.id !== busy?.id) return;
    const { view, frame, began } = busy;
    busy = null;
    view.latency = performance.now() - began;
    if (data.error) [view.until, view.reason] = [Infinity, data.error];
    else if (videos.get(view.video) === view && !view.until) view.show(data, frame);
    send(); // after the drawing, which is short: the canvas is never older than need be
  }

  function start() {
    const frame = document.createElement("iframe"), { port1, port2 } = new MessageChannel();
    const url = api.runtime.getURL("engine.html"), began = performance.now();
    Object.assign(frame.style, { position: "fixed", width: "0", height: "0", border: "0", visibility: "hidden" });
    Object.assign(frame, { src: url, ariaHidden: "true", tabIndex: -1 });
    engine = { frame, port: port1, began, ready: false };
    port1.onmessage = receive;
    frame.addEventListener("load", () => {
      frame.contentWindow.postMessage("clearcall", new URL(url).origin, [port2]);
      port1.postMessage({ id: 0, model: settings.model });
    }, { once: true });
    document.documentElement.append(frame);
  }

  function stop() {
    for (const view of videos.values()) view.remove();
    videos.clear();
    engine?.frame.remove();
    engine?.port.close();
    [engine, busy, failure] = [null, null, ""];
  }

  function scan() {
    if (!settings) return;
    // Without an id, the extension was updated or removed.
    const isOn = api.runtime?.id && !settings.off.includes(location.origin) && settings.strength > 0;
    if (!isOn) {
      if (engine) stop();
      return;
    }
    const now = performance.now(), found = new Set(document.querySelectorAll("video"));
    for (const [video, view] of videos) {
      if (found.has(video)) continue;
      view.remove();
      videos.delete(video);
    }
    for (const video of found) if (!videos.has(video)) videos.set(video, new View(video));
    if (videos.size && !engine) start();
    for (const view of videos.values()) {
      view.check(now);
      view.place();
    }
    if (engine && !engine.ready && now - engine.began > LOAD_MS) failure ||= "the network does not load on this page";
    if (busy && now - busy.began > LOAD_MS) busy = null;
    send();
  }

  async function apply() {
    const { model } = settings ?? {};
    settings = await api.storage.local.get(DEFAULTS);
    scan();
    for (const view of videos.values()) {
      if (model !== settings.model || view.until) view.restart();
      else view.waits ||= performance.now();
    }
    send();
  }

  globalThis.clearcall = () => [...videos.values()].map(view => view.state());
  api.storage.onChanged.addListener(apply);
  setInterval(scan, SCAN_MS);
  apply();
})();
