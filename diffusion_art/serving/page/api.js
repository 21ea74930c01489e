// The API, seen from the page: its requests, and its server-sent events.

import { Away, Refused, ask, json } from "./http.js";

/** The model that is served, with its defaults and limits. */
export async function model() {
  return (await json("v1/models")).data[0];
}

/** Artists, titles, styles, genres, years and whole prompts of the training set. */
export async function suggestions() {
  return json("v1/suggestions");
}

export async function isUp() {
  try {
    return (await fetch("health", { cache: "no-store", signal: AbortSignal.timeout(5000) })).ok;
  } catch {
    return false;
  }
}

/**
 * Paint; yields the stream's events, which are the looks at a picture on its way and the finished pictures.
 *
 * Throws Refused for an error event as for an error status.
 */
export async function* paint(request, signal) {
  const response = await ask("v1/images/generations", {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "text/event-stream" },
    body: JSON.stringify({ ...request, stream: true, partial_images: 3, output_format: "png" }),
    signal,
  });
  for await (const text of events(response.body)) {
    if (text === "[DONE]") return;
    const event = JSON.parse(text);
    if (event.error) {
      const status = event.error.code === "unavailable" ? 503 : 500;
      throw new Refused(event.error.message, { status, ...event.error });
    }
    yield event;
  }
}

/** The data of each event of a stream, as https://html.spec.whatwg.org/multipage/server-sent-events.html parses it. */
export async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let data = [];
  try {
    while (true) {
      const { done, value } = await reader.read();
      if (done) return;
      rest += value;
      const held = rest.endsWith("\r") ? 1 : 0; // perhaps half of a line's end
      const lines = rest.slice(0, rest.length - held).split(/\r\n|\n|\r/);
      rest = lines.pop() + rest.slice(rest.length - held);
      for (const line of lines) {
        if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
        else if (line === "" && data.length) {
          yield data.join("\n");
          data = [];
        }
      }
    }
  } catch (error) {
    throw error instanceof TypeError || error.name === "AbortError" ? new Away("The answer broke off.") : error;
  } finally {
    reader.cancel().catch(() => {});
  }
}
