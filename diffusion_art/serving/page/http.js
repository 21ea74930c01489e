// Requests to our own server, and what can go wrong with them.

/** The server answered, and said no: `message` is its own, `status` 4xx or 5xx. */
export class Refused extends Error {
  constructor(message, { status = 0, code = null, param = null, retryAfterS = null } = {}) {
    super(message);
    Object.assign(this, { name: "Refused", status, code, param, retryAfterS });
  }
}

/** No answer, or one that broke off: the server or the way to it is gone. */
export class Away extends Error {
  constructor(message = "The server does not answer.") {
    super(message);
    this.name = "Away";
  }
}

const TOKEN = "diffusion_art.token"; // for as long as the tab is open
let token = keptToken();

/** Without what was pasted along: `fetch` throws on most other characters in a header, and no token has any. */
function printable(text) {
  return text.replace(/[^!-~]/g, "");
}

function keptToken() {
  try {
    return printable(sessionStorage.getItem(TOKEN) ?? "");
  } catch {
    return ""; // storage is closed to this page
  }
}

export function setToken(given) {
  token = printable(given);
  try {
    sessionStorage.setItem(TOKEN, token);
  } catch {
    // not kept, then: a reload asks again
  }
}

/** One request. Throws Refused or Away; a request that the page itself aborted ends in Away too. */
export async function ask(path, { headers = {}, ...options } = {}) {
  if (token) headers = { ...headers, Authorization: `Bearer ${token}` };
  let response;
  try {
    response = await fetch(path, { cache: "no-store", ...options, headers });
  } catch {
    throw new Away();
  }
  if (!response.ok && response.status !== 304) throw await refusal(response);
  return response;
}

async function refusal(response) {
  let said = {};
  try {
    said = (await response.json()).error ?? {};
  } catch {
    // not ours: a proxy's page perhaps
  }
  const retryAfterS = Number.parseFloat(response.headers.get("Retry-After") ?? "");
  return new Refused(said.message || `The server answered ${response.status} ${response.statusText}.`, {
    status: response.status,
    code: said.code,
    param: said.param,
    retryAfterS: Number.isFinite(retryAfterS) ? retryAfterS : null,
  });
}

/** What an answer holds. Throws Away where that is no JSON: it broke off, or another server answers in our place. */
export async function valueOf(response) {
  try {
    return await response.json();
  } catch {
    throw new Away("The answer cannot be read.");
  }
}

export async function json(path) {
  return valueOf(await ask(path));
}
