// Documents: read, write and remove them, and read their metadata.
//
// Nearly every document has a path of its own. Keys that browsers cannot put into a path (".", "..", bytes that are
// not UTF-8) are reached by a batch of one line.

import { GatewayError, request, send } from "./api.mjs";
import { elements, memberMap, stringOf } from "./json.mjs";
import { fromBase64, link, path, segment, toBase64 } from "./keys.mjs";

/** Larger documents are neither shown in full nor edited as text. */
export const EDITABLE_BYTES = 1_000_000;
export const BEGINNING_BYTES = 65_536;

export const FLAGS = { json: 0x2000000, text: 0x4000000, binary: 0x3000000 };

/**
 * A collection's documents.
 *
 * A key is a text, or {base64} for bytes that are not UTF-8.
 */
export class Collection {
  constructor({ bucket, scope = "_default", collection = "_default" }) {
    Object.assign(this, { bucket, scope, collection });
    this.isDefault = scope === "_default" && collection === "_default";
    this.base = path("v1", "buckets", bucket, ...(this.isDefault ? [] : ["scopes", scope, "collections", collection]));
    this.names = ["buckets", bucket, "scopes", scope, "collections", collection];
    this.title = this.isDefault ? bucket : `${bucket}.${scope}.${collection}`;
  }

  /** Return the address of the list of documents, or of one of them. */
  link(key) {
    if (key === undefined) return link(...this.names, "documents");
    return typeof key === "string" ? link(...this.names, "documents", key) : link(...this.names, "documents-base64", key.base64);
  }

  documentPath(key) {
    const last = typeof key === "string" ? segment(key) : null;
    return last === null ? null : `${this.base}/documents/${last}`;
  }

  batch(op, key, members = "") {
    const which = typeof key === "string" ? `"key":${JSON.stringify(key)}` : `"key_base64":"${key.base64}"`;
    return request("POST", `${this.base}/batch`, {
      headers: { "Content-Type": "application/x-ndjson", Accept: "application/x-ndjson" },
      body: `{"op":"${op}",${which}${members}}\n`,
    });
  }

  /** The request that reads a document. */
  reading(key) {
    const at = this.documentPath(key);
    return at === null ? this.batch("get", key) : request("GET", at);
  }

  /**
   * Read a document.
   *
   * @returns {cas, flags, type, expiry (milliseconds or null), bytes, isWhole, described}
   */
  async read(key, signal, most = EDITABLE_BYTES) {
    const described = this.reading(key);
    const response = await send(described, signal);
    if (this.documentPath(key) === null) return { ...(await outcome(response, described)), described };
    const { bytes, isWhole } = await beginning(response, most);
    const expires = response.headers.get("Expires");
    return {
      cas: cas(response.headers.get("ETag")),
      flags: Number(response.headers.get("X-CB-Flags")),
      type: response.headers.get("Content-Type") ?? "",
      expiry: expires === null ? null : Date.parse(expires),
      bytes,
      isWhole,
      described,
    };
  }

  /**
   * Return the request that stores a document.
   *
   * @param options body (text or bytes), cas (null to create a new document), flags, expires (as the header takes it;
   *   null to leave the expiry as it is).
   */
  writing(key, { body, cas: known, flags, expires = null }) {
    const at = this.documentPath(key);
    if (at === null) {
      const content = typeof body === "string" ? new TextEncoder().encode(body) : body;
      const members = [`"flags":${flags}`, `"base64":"${toBase64(content)}"`];
      if (known !== null) members.push(`"cas":"${known}"`);
      if (expires !== null) members.push(`"expires":${JSON.stringify(expires)}`);
      return this.batch(known === null ? "add" : "set", key, "," + members.join(","));
    }
    const headers = {};
    const type = { [FLAGS.json]: "application/json", [FLAGS.text]: "text/plain", [FLAGS.binary]: "application/octet-stream" }[flags];
    if (type === undefined) Object.assign(headers, { "Content-Type": "application/octet-stream", "X-CB-Flags": String(flags) });
    else headers["Content-Type"] = type;
    if (known !== null) headers["If-Match"] = known;
    if (expires !== null) headers.Expires = expires;
    return request(known === null ? "POST" : "PUT", at, { headers, body, bodyName: "document" });
  }

  /** Send a request of `writing` or `removing`; returns the new CAS. */
  async carryOut(key, described, signal) {
    const response = await send(described, signal);
    if (this.documentPath(key) === null) return (await outcome(response, described)).cas;
    return cas(response.headers.get("ETag"));
  }

  /** Return the request that removes a version of a document. */
  removing(key, known) {
    const at = this.documentPath(key);
    return at === null ? this.batch("delete", key, `,"cas":"${known}"`) : request("DELETE", at, { headers: { "If-Match": known } });
  }

  /** Return the request for a document's attributes. */
  lookup(key, paths) {
    const operations = JSON.stringify(paths.map((one) => ({ operation: "Get", path: one, xattr: true })));
    const at = this.documentPath(key);
    if (at === null) return this.batch("lookup_in", key, `,"operations":${operations}`);
    return request("POST", `${at}/lookup`, { headers: { "Content-Type": "application/json" }, body: `{"operations":${operations}}` });
  }

  /** Read attributes; returns the texts of their values, null for missing ones. */
  async attributes(key, paths, signal) {
    const described = this.lookup(key, paths);
    const response = await send(described, signal);
    let results;
    if (this.documentPath(key) === null) results = (await line(response, described)).get("results");
    else results = await response.text();
    return elements(results).map((one) => memberMap(one).get("value") ?? null);
  }

  /** Return the request that sets an attribute, or removes it if `value` is null. */
  settingAttribute(key, name, value, known) {
    const operation = value === null ? "Delete" : "DictSet";
    const change = `{"operation":"${operation}","path":${JSON.stringify(name)},"xattr":true${value === null ? "" : `,"value":${value}`}}`;
    const at = this.documentPath(key);
    if (at === null) return this.batch("mutate_in", key, `,"cas":"${known}","preserveExpiry":true,"operations":[${change}]`);
    return request("POST", `${at}/mutate`, {
      headers: { "Content-Type": "application/json", "If-Match": known },
      body: `{"preserveExpiry":true,"operations":[${change}]}`,
    });
  }

  /** Return the request for keys, or documents with `include_docs`. */
  listing(query) {
    return request("GET", `${this.base}/documents`, { query, headers: { Accept: "application/x-ndjson" } });
  }
}

function cas(etag) {
  return etag === null ? "" : etag.replace(/^W\//, "").replaceAll('"', "");
}

/** Read a body up to a number of bytes, and stop it there. */
async function beginning(response, most) {
  if (response.body === null) return { bytes: new Uint8Array(), isWhole: true };
  const reader = response.body.getReader();
  const parts = [];
  let size = 0;
  let isWhole = true;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    size += value.length;
    if (size > most) {
      isWhole = false;
      await reader.cancel().catch(() => undefined);
      break;
    }
  }
  const bytes = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return { bytes, isWhole };
}

/** Read the one line of a batch's answer; returns its members. */
async function line(response, described) {
  const found = memberMap((await response.text()).trim());
  const status = Number(found.get("status"));
  if (status >= 400) throw new GatewayError(status, JSON.parse(found.get("error") ?? "{}"), described);
  return found;
}

async function outcome(response, described) {
  const found = await line(response, described);
  const encoder = new TextEncoder();
  let bytes = new Uint8Array();
  if (found.has("value")) bytes = encoder.encode(found.get("value"));
  else if (found.has("text")) bytes = encoder.encode(stringOf(found.get("text")));
  else if (found.has("base64")) bytes = fromBase64(stringOf(found.get("base64")));
  return {
    cas: stringOf(found.get("cas")) ?? "",
    flags: Number(found.get("flags") ?? 0),
    type: found.has("value") ? "application/json" : "",
    expiry: null,
    bytes,
    isWhole: true,
  };
}

/** Return bytes as text; null if they are not UTF-8. */
export function asText(bytes, isCut = false) {
  // A character may be cut in two at the end: its part is left out.
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes, { stream: isCut });
  } catch {
    return null;
  }
}
