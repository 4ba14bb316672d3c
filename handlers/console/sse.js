// sse.js reads an event stream (HTML Living Standard, section 9.2.6) from bytes
// in pieces of any size. EventSource cannot: it sends no Authorization, no
// POST, and tells nothing of a refusal.

// An EventParser is for one connection. push returns the events that a piece of
// the stream completes; what stands before an end that never came is no event.
export class EventParser {
  // lastId is that of the stream before, if this one resumes it.
  constructor(lastId = "") {
    this.lastId = lastId;
    this.retry = null; // milliseconds, once the server has said so
    this.#pendingId = lastId;
  }

  #decoder = new TextDecoder(); // strips the byte order mark, joins split characters
  #line = []; // pieces of the line that is not complete
  #afterCR = false; // an LF that comes next belongs to the line before
  #pendingId;
  #type = "";
  #data = [];

  push(bytes) {
    const events = [];
    let text = this.#decoder.decode(bytes, { stream: true });
    if (text === "") return events;
    if (this.#afterCR && text[0] === "\n") text = text.slice(1);
    this.#afterCR = text.endsWith("\r");
    const lines = text.split(/\r\n|\r|\n/);
    const rest = lines.pop();
    for (const line of lines) {
      this.#line.push(line);
      this.#take(this.#line.join(""), events);
      this.#line.length = 0;
    }
    if (rest !== "") this.#line.push(rest);
    return events;
  }

  #take(line, events) {
    if (line === "") {
      this.#dispatch(events);
      return;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return; // a comment
    const field = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? "" : line.slice(colon + 1);
    if (value[0] === " ") value = value.slice(1);
    switch (field) {
      case "event":
        this.#type = value;
        break;
      case "data":
        this.#data.push(value);
        break;
      case "id":
        if (!value.includes("\0")) this.#pendingId = value;
        break;
      case "retry":
        if (/^[0-9]+$/.test(value)) this.retry = Number(value);
        break;
    }
  }

  #dispatch(events) {
    this.lastId = this.#pendingId;
    if (this.#data.length > 0) {
      events.push({ type: this.#type || "message", data: this.#data.join("\n"), id: this.lastId });
    }
    this.#type = "";
    this.#data = [];
  }
}
