// The gateway's resources: requests, credentials, errors, and each request as a curl command.

const STORED = "couchgateway.credentials";
const SHOWN_BODY = 4096;

/** An error that the gateway, or the network, reports. */
export class GatewayError extends Error {
  constructor(status, members, request) {
    super(members.message ?? `The gateway answered with status ${status}.`);
    this.status = status;
    this.code = members.code ?? "";
    this.retry = members.retry ?? "";
    this.requestId = members.requestId ?? "";
    this.resource = members.resource ?? "";
    /** What a service behind the gateway reports. */
    this.errors = Array.isArray(members.errors) ? members.errors : [];
    this.request = request;
  }

  /** Whether other credentials may help. */
  get isAboutCredentials() {
    return this.status === 401 || this.code === "InvalidAuth";
  }
}

// ---- credentials -------------------------------------------------------------------------------------------------

/** {kind: "none"}, {kind: "basic", user, password}, {kind: "bearer", token}, or {kind: "browser"}: what the browser
 * sends by itself, a certificate or a cookie. */
let credentials = read();

function read() {
  try {
    const found = JSON.parse(sessionStorage.getItem(STORED));
    return found && typeof found.kind === "string" ? found : { kind: "none" };
  } catch {
    return { kind: "none" };
  }
}

/** Return the credentials in use. */
export function current() {
  return credentials;
}

/** Use credentials until the tab is closed. */
export function signIn(given) {
  credentials = given;
  try {
    sessionStorage.setItem(STORED, JSON.stringify(given));
  } catch {
    // Without storage they last until the page is left.
  }
}

/** Forget the credentials. */
export function signOut() {
  credentials = { kind: "none" };
  try {
    sessionStorage.removeItem(STORED);
  } catch {
    // There was nothing to forget.
  }
}

/** Return the header that carries credentials; null if there is none. */
export function authorization(given) {
  if (given.kind === "basic") {
    let text = "";
    for (const byte of new TextEncoder().encode(`${given.user}:${given.password}`)) text += String.fromCharCode(byte);
    return "Basic " + btoa(text);
  }
  return given.kind === "bearer" ? "Bearer " + given.token : null;
}

// ---- requests ----------------------------------------------------------------------------------------------------

/** Return the address of a path that is relative to the gateway. */
export function address(path, query) {
  const url = new URL(path, document.baseURI);
  url.hash = "";
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== null && value !== undefined && value !== "") url.searchParams.append(name, value);
  }
  return url;
}

/**
 * Describe a request.
 *
 * @param path relative to the gateway, its segments encoded.
 * @param options query (name to value; empty ones are left out), headers, body (text or bytes), bodyName (what the
 *   body is, where it is too long to be shown).
 */
export function request(method, path, { query, headers = {}, body = null, bodyName = "body" } = {}) {
  return { method, url: address(path, query), headers, body, bodyName };
}

/**
 * Send a request.
 *
 * @returns the Response, its body unread.
 * @throws {GatewayError} for statuses from 400 on, and without an answer (status 0).
 */
export async function send(described, signal) {
  const headers = new Headers(described.headers);
  const given = authorization(credentials);
  if (given !== null) headers.set("Authorization", given);
  // Shows the gateway, even behind a proxy that changes host names, that no form of another page sent this request.
  if (described.method === "POST") headers.set("X-Requested-With", "couchgateway-console");
  let response;
  try {
    response = await fetch(described.url, {
      method: described.method,
      headers,
      body: described.body,
      signal,
      // Otherwise the browser would ask for a password in a window of its own.
      credentials: credentials.kind === "browser" ? "same-origin" : "omit",
      cache: "no-store",
      redirect: "error",
    });
  } catch (error) {
    if (signal?.aborted || error.name === "AbortError") throw error;
    throw new GatewayError(0, { message: "The gateway does not answer. Is it running?" }, described);
  }
  if (response.status >= 400) throw await refusal(response, described);
  return response;
}

/** Read an error answer. */
export async function refusal(response, described) {
  let found = {};
  try {
    found = JSON.parse(await response.text());
  } catch {
    // The answer of another server: only its status is used.
  }
  return new GatewayError(response.status, found ?? {}, described);
}

/** Send a request, and return its JSON answer as text, in which numbers are exact. */
export async function text(described, signal) {
  return (await send(described, signal)).text();
}

/** Send a request, and return its JSON answer as a value: for answers of the gateway itself, not documents. */
export async function value(described, signal) {
  return JSON.parse(await text(described, signal));
}

/** Yield the lines of an answer as they come, without empty ones. */
export async function* lines(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value: part } = await reader.read();
      if (done) break;
      const found = (rest + part).split("\n");
      rest = found.pop();
      for (const line of found) if (line.trim() !== "") yield line;
    }
    if (rest.trim() !== "") yield rest;
  } finally {
    // A caller that stops reading cancels the answer.
    await reader.cancel().catch(() => undefined);
  }
}

// ---- as commands -------------------------------------------------------------------------------------------------

/** Return a text as one word of a shell. */
export function quoted(word) {
  return /^[A-Za-z0-9_./:=@%+,-]+$/.test(word) ? word : "'" + word.replaceAll("'", "'\\''") + "'";
}

/**
 * Return a request as a curl command. Passwords and tokens are not in it: curl asks for the password, and the token
 * is a variable.
 */
export function curl(described, given = credentials) {
  const words = ["curl", "-sS"];
  if (described.method === "HEAD") words.push("-I");
  else if (described.method !== "GET") words.push("-X", described.method);
  if (given.kind === "basic") words.push("-u", quoted(given.user));
  if (given.kind === "bearer") words.push("-H", '"Authorization: Bearer $TOKEN"');
  for (const [name, held] of Object.entries(described.headers)) words.push("-H", quoted(`${name}: ${held}`));
  if (described.body !== null) {
    const isShown = typeof described.body === "string" && described.body.length <= SHOWN_BODY && !described.body.includes("\0");
    words.push(...(isShown ? ["--data-raw", quoted(described.body)] : ["--data-binary", quoted("@" + described.bodyName)]));
  }
  words.push(quoted(String(described.url)));
  return words.join(" ");
}
