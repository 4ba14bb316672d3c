// voice.js hears and speaks: it records, sends the recording while it is spoken,
// and plays what comes back.

import { newKey, patiently } from "./api.js";
import { button, el, say } from "./dom.js";

// formats are those that both recorders and Parley know, the best first.
const formats = { webm: "audio/webm;codecs=opus", ogg: "audio/ogg;codecs=opus" };

const sounds = { mp3: "audio/mpeg", wav: "audio/wav", ogg: "audio/ogg", webm: "audio/webm" };

// A Voice is what a page hears and speaks with. It plays one thing at a time.
export class Voice {
  constructor(session) {
    this.session = session;
    session.ended.addEventListener("abort", () => this.quiet());
  }

  #player = null;

  // #missing shows that nobody hears or speaks on the server, where that is so.
  #missing(problem) {
    if (problem.code === "voice_unavailable") {
      document.documentElement.dataset.voice = "none";
      document.querySelector(".composer .record")?.setAttribute("title", problem.message);
    }
    if (problem.name !== "AbortError") say(problem.message);
  }

  quiet() {
    this.#player?.stop();
  }

  // #play gets ready to play what belongs to a message.
  #play(message) {
    this.quiet();
    this.#player = new Player(message.speaker);
    return this.#player;
  }

  // record takes a recording for a chat: it arrives there while it is spoken.
  async record(chat, composer) {
    composer.recording.disabled = true; // one at a time
    try {
      await this.#record(chat, composer);
    } finally {
      composer.recording.disabled = chat.running !== null;
    }
  }

  async #record(chat, composer) {
    const format = Object.keys(formats).find((name) => globalThis.MediaRecorder?.isTypeSupported(formats[name]));
    if (!format || !navigator.mediaDevices) {
      say("This browser cannot record here. It needs https, and to know Opus in WebM or Ogg.");
      return;
    }
    this.quiet();
    const upload = new Upload(this.session);
    try {
      await upload.begin(format, chat.id);
    } catch (problem) {
      this.#missing(problem);
      return;
    }
    let microphone;
    try {
      microphone = await navigator.mediaDevices.getUserMedia({ audio: true });
    } catch {
      say("The microphone cannot be used. Look at the browser's permissions for this page.");
      upload.drop();
      return;
    }
    try {
      if (!(await recording(microphone, formats[format], upload, composer, chat.closed.signal))) {
        upload.drop();
        return;
      }
      await upload.arrived();
    } catch (problem) {
      say(problem.message);
      upload.drop();
      return;
    } finally {
      for (const track of microphone.getTracks()) track.stop();
      composer.listening();
    }
    this.#send(chat, upload.id);
  }

  // #send has a recording answered. One that could not be heard for a reason that
  // passes can be sent again, without being spoken again.
  async #send(chat, upload) {
    let player;
    const failed = await chat.hearken(upload, ({ type, data }, reply) => {
      if (type !== "voice_audio") return;
      player ??= this.#play(reply);
      player.add(sound(data));
    });
    player?.last();
    if (!failed) return;
    const again = button({ text: "Try again", class: "small", click: () => this.#send(chat, upload) });
    chat.log.tell(failed.message, ...(failed.retryable ? [" ", again] : []));
  }

  // speak reads a stored message aloud, or stops that.
  async speak(message) {
    if (this.#player?.pressed === message.speaker && !this.#player.stopped.aborted) {
      this.quiet();
      return;
    }
    const player = this.#play(message);
    try {
      const response = await this.session.ask("GET", `messages/${message.id}/audio`, { signal: player.stopped });
      player.add(await streamed(response));
      player.last();
    } catch (problem) {
      player.stop();
      this.#missing(problem);
    }
  }
}

// recording records until the user is done, and returns whether there is something
// to send.
function recording(microphone, mimeType, upload, composer, closed) {
  return new Promise((resolve) => {
    const recorder = new MediaRecorder(microphone, { mimeType, audioBitsPerSecond: 32_000 });
    const clock = el("output", { class: "clock" }, "0:00");
    const began = Date.now();
    const ticking = setInterval(() => {
      const seconds = Math.floor((Date.now() - began) / 1000);
      clock.textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
    }, 250);
    const over = new AbortController();
    let wanted = false;
    const end = (send) => {
      wanted = send;
      if (recorder.state !== "inactive") recorder.stop();
    };
    recorder.addEventListener("dataavailable", (event) => upload.add(event.data));
    recorder.addEventListener("stop", () => {
      clearInterval(ticking);
      over.abort();
      resolve(wanted);
    });
    document.addEventListener("keydown", (event) => event.key === "Escape" && end(false), { signal: over.signal });
    closed.addEventListener("abort", () => end(false), { signal: over.signal });
    const done = button({ label: "Send the recording", name: "send", class: "round primary done", click: () => end(true) });
    composer.listening(
      el("span", { class: "live", role: "status" }, "Recording"),
      clock,
      button({ label: "Discard the recording", name: "close", class: "round quiet", click: () => end(false) }),
      done,
    );
    done.focus();
    recorder.start(500); // a piece every half second
    if (closed.aborted) end(false); // while the browser asked the user
  });
}

// An Upload sends a recording piece by piece while it grows. A piece whose answer
// is lost is sent again from where the server says it stands.
class Upload {
  constructor(session) {
    this.session = session;
    this.id = null;
  }

  #parts = [];
  #size = 0;
  #offset = 0;
  #most = 0;
  #sending = null;

  async begin(format, chat) {
    const body = chat ? { format, chat_id: chat } : { format };
    const headers = { "Idempotency-Key": newKey() };
    const answer = await patiently(() => this.session.json("POST", "voice/uploads", body, { headers }), { tries: 3 });
    this.id = answer.upload_id;
    this.#most = answer.max_chunk_bytes;
  }

  add(part) {
    this.#parts.push(part);
    this.#size += part.size;
    this.#send();
  }

  #send() {
    this.#sending ??= this.#drain().finally(() => (this.#sending = null));
    this.#sending.catch(() => {}); // arrived tells
  }

  async #drain() {
    while (this.#offset < this.#size) {
      const piece = new Blob(this.#parts).slice(this.#offset, this.#offset + this.#most);
      try {
        const headers = { "Upload-Offset": String(this.#offset), "Content-Type": "application/octet-stream" };
        const answer = await patiently(() => this.session.json("POST", `voice/uploads/${this.id}/chunks`, piece, { headers }), { tries: 20 });
        this.#offset = answer.offset;
      } catch (problem) {
        if (problem.code !== "offset_mismatch") throw problem;
        this.#offset = problem.document.offset;
      }
    }
  }

  // arrived waits until all of it is there.
  async arrived() {
    this.#send();
    await this.#sending;
  }

  drop() {
    this.session.json("DELETE", `voice/uploads/${this.id}`).catch(() => {}); // it expires
  }
}

const sound = ({ audio, format }) => new Blob([Uint8Array.from(atob(audio), (c) => c.charCodeAt(0))], { type: sounds[format] });

// streamed makes of an answer what can be played while it still arrives, where the
// browser can do that.
async function streamed(response) {
  const type = response.headers.get("Content-Type");
  if (!globalThis.MediaSource?.isTypeSupported(type)) return response.blob();
  const media = new MediaSource();
  media.addEventListener("sourceopen", async () => {
    const buffer = media.addSourceBuffer(type);
    try {
      for (const reader = response.body.getReader(); ; ) {
        const { done, value } = await reader.read();
        if (done) break;
        buffer.appendBuffer(value);
        await new Promise((resolve) => buffer.addEventListener("updateend", resolve, { once: true }));
      }
      media.endOfStream();
    } catch {
      if (media.readyState === "open") media.endOfStream("network");
    }
  }, { once: true });
  return media;
}

// A Player plays sounds in their order. The button pressed shows that it does. One
// that was stopped plays nothing any more.
class Player {
  constructor(pressed) {
    this.pressed = pressed;
    this.audio = new Audio();
    this.audio.addEventListener("ended", () => this.#next());
    this.audio.addEventListener("error", () => this.#next());
    pressed.setAttribute("aria-pressed", "true");
  }

  #queue = [];
  #playing = false;
  #over = false;
  #stop = new AbortController();

  get stopped() {
    return this.#stop.signal;
  }

  add(source) {
    this.#queue.push(source);
    if (!this.#playing) this.#next();
  }

  // last says that nothing follows.
  last() {
    this.#over = true;
    if (!this.#playing) this.stop();
  }

  #next() {
    URL.revokeObjectURL(this.audio.src);
    const source = this.#queue.shift();
    this.#playing = source !== undefined && !this.stopped.aborted;
    if (this.#playing) {
      this.audio.src = URL.createObjectURL(source);
      this.audio.play().catch(() => this.stop()); // the browser wants a click first
    } else if (this.#over) this.stop();
  }

  stop() {
    if (this.stopped.aborted) return;
    this.#stop.abort();
    this.audio.pause();
    URL.revokeObjectURL(this.audio.src);
    this.audio.removeAttribute("src");
    this.pressed.removeAttribute("aria-pressed");
  }
}
