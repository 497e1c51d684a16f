// JSON as text. Documents are never parsed and written again: numbers keep every digit, members their order.

const SPACE = /[ \t\n\r]*/y;
const PLAIN = /[^"\\\u0000-\u001f]*/y;
const ESCAPE = /\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})/y;
const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
const WORD = /true|false|null/y;
const DEEPEST = 1024;

/** Text that is not JSON: `message`, and `offset`, `line` and `column` (from 1) of the place. */
export class JsonError extends Error {
  constructor(message, text, offset) {
    super(message);
    const before = text.slice(0, offset);
    this.offset = offset;
    this.line = before.split("\n").length;
    this.column = offset - before.lastIndexOf("\n");
  }
}

function after(pattern, text, at) {
  pattern.lastIndex = at;
  return pattern.test(text) ? pattern.lastIndex : -1;
}

function afterString(text, at) {
  let end = at + 1;
  for (;;) {
    end = after(PLAIN, text, end);
    if (text[end] === '"') return end + 1;
    if (text[end] !== "\\") {
      const what = end >= text.length ? "the string has no end" : "a control character in a string must be escaped";
      throw new JsonError(what, text, end >= text.length ? at : end);
    }
    const next = after(ESCAPE, text, end);
    if (next < 0) throw new JsonError("this escape is unknown", text, end);
    end = next;
  }
}

/**
 * Yield the tokens of a JSON text, and check its grammar (RFC 8259) on the way.
 *
 * A token is {kind, start, end, depth}: kind is "string", "name" (of a member), "number", "word", or the character
 * of a bracket, colon or comma; depth is the number of open brackets around it.
 *
 * @throws {JsonError} at the first place that is not JSON.
 */
export function* tokens(text) {
  const open = [];
  let expected = "value"; // value, first (value or ]), name, firstName (name or }), colon, next (comma or closing)
  let at = after(SPACE, text, 0);
  while (at < text.length) {
    const character = text[at];
    const inObject = open.at(-1) === "{";
    if (expected === "end") throw new JsonError("the text goes on after its value", text, at);
    let kind = character;
    let end = at + 1;
    let depth = open.length;
    if (expected === "next" || ((character === "]" || character === "}") && expected.startsWith("first"))) {
      if (character === "," && expected === "next") {
        expected = inObject ? "name" : "value";
      } else if (character === (inObject ? "}" : "]")) {
        open.pop();
        depth -= 1;
        expected = open.length ? "next" : "end";
      } else {
        throw new JsonError(`expected a comma or ${inObject ? "}" : "]"}`, text, at);
      }
    } else if (expected === "colon") {
      if (character !== ":") throw new JsonError("expected a colon", text, at);
      expected = "value";
    } else if (expected === "name" || expected === "firstName") {
      if (character !== '"') throw new JsonError("expected a name in double quotes", text, at);
      end = afterString(text, at);
      kind = "name";
      expected = "colon";
    } else if (character === "{" || character === "[") {
      open.push(character);
      if (open.length > DEEPEST) throw new JsonError(`more than ${DEEPEST} levels`, text, at);
      expected = character === "{" ? "firstName" : "first";
    } else {
      if (character === '"') {
        end = afterString(text, at);
        kind = "string";
      } else if ((end = after(NUMBER, text, at)) > 0) {
        kind = "number";
      } else if ((end = after(WORD, text, at)) > 0) {
        kind = "word";
      } else {
        throw new JsonError("expected a value", text, at);
      }
      expected = open.length ? "next" : "end";
    }
    yield { kind, start: at, end, depth };
    at = after(SPACE, text, end);
  }
  if (expected !== "end") {
    throw new JsonError(open.length ? `the closing ${open.at(-1) === "{" ? "}" : "]"} is missing` : "there is no value", text, text.length);
  }
}

/** Return the first error of a JSON text, a JsonError; null if the text is valid. */
export function problemOf(text) {
  try {
    for (const token of tokens(text)) void token;
    return null;
  } catch (error) {
    if (error instanceof JsonError) return error;
    throw error;
  }
}

/** Return the text on indented lines; every token stays as it is. Throws JsonError. */
export function pretty(text, indent = "  ") {
  const parts = [];
  let last = "";
  for (const { kind, start, end, depth } of tokens(text)) {
    if (last === "{" || last === "[") {
      if (kind !== "}" && kind !== "]") parts.push("\n", indent.repeat(depth));
    } else if (last === ",") {
      parts.push("\n", indent.repeat(depth));
    } else if (kind === "}" || kind === "]") {
      parts.push("\n", indent.repeat(depth));
    } else if (last === ":") {
      parts.push(" ");
    }
    parts.push(text.slice(start, end));
    last = kind;
  }
  return parts.join("");
}

/** Return the text without blanks between tokens. Throws JsonError. */
export function compact(text) {
  const parts = [];
  for (const { start, end } of tokens(text)) parts.push(text.slice(start, end));
  return parts.join("");
}

function children(text, wanted) {
  const found = [];
  let name = null;
  let from = -1;
  let first = null;
  for (const { kind, start, end, depth } of tokens(text)) {
    if (first === null) {
      first = kind;
      if (first !== wanted) throw new JsonError(`expected ${wanted}`, text, start);
      continue;
    }
    if (depth === 1 && kind === "name") {
      name = JSON.parse(text.slice(start, end));
    } else if (depth === 1 && (kind === "," || kind === ":")) {
      from = -1;
    } else if (depth >= 1) {
      if (from < 0) {
        from = start;
        found.push([name, ""]);
      }
      found.at(-1)[1] = text.slice(from, end);
    }
  }
  return found;
}

/** Return the members of an object as [name, text of the value], in their order. Throws JsonError. */
export function members(text) {
  return children(text, "{");
}

/** Return the members of an object as a Map; of names given twice, the last one counts. Throws JsonError. */
export function memberMap(text) {
  return new Map(members(text));
}

/** Return the texts of an array's elements. Throws JsonError. */
export function elements(text) {
  return children(text, "[").map(([, value]) => value);
}

/**
 * Return the first member of an object as [name, text of the value] if that is a string, without reading the rest,
 * which may be long; null otherwise.
 */
export function firstString(text) {
  const name = after(SPACE, text, 1);
  if (text[0] !== "{" || text[name] !== '"') return null;
  const nameEnd = afterString(text, name);
  const colon = after(SPACE, text, nameEnd);
  const start = after(SPACE, text, colon + 1);
  if (text[colon] !== ":" || text[start] !== '"') return null;
  return [JSON.parse(text.slice(name, nameEnd)), text.slice(start, afterString(text, start))];
}

/** Return the value of a JSON text that is a string; null for any other text. */
export function stringOf(text) {
  return text !== undefined && text.startsWith('"') ? JSON.parse(text) : null;
}
