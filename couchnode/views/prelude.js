// What user functions find in their V8 context, and the loops that call them.
//
// Runs once in a new context, before any user code, and evaluates to a function of the limits that returns the one
// function through which the host process (sandbox.py) does everything: host(operation, text) -> text. User code may
// later overwrite any built-in of its context. So everything used here afterwards is captured first, nothing
// iterates, and no new element is stored in an array (a setter on Array.prototype would see it).
//
// Texts to the host are lines and sections ended by control characters (\n, \t, \f). Whatever comes from user code is
// in them as printed by the captured JSON.stringify, which escapes control characters: a forged line is impossible.

(function (limitsText) {
  "use strict";

  const { parse, stringify } = JSON;
  const { TypeError, RangeError, SyntaxError, Function, Date, String, isFinite } = globalThis;
  const { now } = Date;
  const { fromEntries, defineProperty } = Object;
  const evaluate = globalThis.eval; // under another name: indirect, so in the global scope
  const charCodeAt = Function.prototype.call.bind(String.prototype.charCodeAt);
  const slice = Function.prototype.call.bind(String.prototype.slice);
  const limits = parse(limitsText);
  const { keyBytes, rowsBytes, valueBytes, keysPerDocument, reductionBytes, sliceMilliseconds } = limits;

  // Gone: what could run code after a call, block the thread, or hold memory that V8 does not count; and the timers
  // that the host's library installs.
  if (typeof __TimerManager !== "undefined") __TimerManager = undefined;
  for (const name of [
    "__timer_manager", "setTimeout", "clearTimeout", "console", "WebAssembly", "SharedArrayBuffer", "Atomics",
    "FinalizationRegistry",
  ]) {
    // The timers are declared with var: they stay, without a value.
    if (!Reflect.deleteProperty(globalThis, name)) globalThis[name] = undefined;
  }
  // Would put text into JSON that JSON.stringify did not print.
  delete JSON.rawJSON;
  delete JSON.isRawJSON;

  const MAX_OUTPUT = 4 * 1024 * 1024; // characters of rows after which a batch pauses for them to be taken
  const MAX_REASON = 1000;
  const MAX_LOG = 100;
  const MAX_ENDS = 100;
  const NO_FUNCTION = "Expected one function, such as function (doc, meta) {...} or (doc, meta) => {...}";

  let functions = []; // the compiled functions, a fixed array once loaded
  let batch = []; // documents or reduce calls under way
  let position = 0; // of the one that runs now
  let sections = []; // finished text for each function
  let pending = []; // text of the document under way for each function
  let dropped = "";
  let pendingDropped = "";
  let logged = "";
  let logCount = 0;
  let failure = ""; // ends the batch

  // State of the map function that runs now.
  let active = false;
  let mark = "";
  let rows = "";
  let count = 0;
  let upper = 0; // an upper bound of the bytes emitted
  let exact = -1; // those bytes, counted only once the bound is over the limit
  let fatal = "";

  function utf8Length(text) {
    const length = text.length;
    let bytes = length;
    for (let index = 0; index < length; index++) {
      const unit = charCodeAt(text, index);
      if (unit > 0x7f) bytes += unit > 0x7ff && (unit < 0xd800 || unit > 0xdfff) ? 2 : 1;
    }
    return bytes;
  }

  function describe(error) {
    let text;
    try {
      text = String(error);
    } catch {
      text = "an exception that cannot be printed";
    }
    return text.length > MAX_REASON ? slice(text, 0, MAX_REASON) + "..." : text;
  }

  function emit(key, value) {
    let keyText = stringify(key);
    let valueText = stringify(value);
    if (!active) throw new TypeError("emit can only be called while a map function runs");
    if (keyText === undefined) keyText = "null";
    if (valueText === undefined) valueText = "null";
    if (keyText.length * 3 >= keyBytes) {
      const bytes = utf8Length(keyText);
      if (bytes >= keyBytes) throw new RangeError(`emitted key of ${bytes} bytes is too long: ${keyBytes} is the limit`);
    }
    if (valueText.length * 3 > valueBytes) {
      const bytes = utf8Length(valueText);
      if (bytes > valueBytes) {
        fatal = `emitted value of ${bytes} bytes is too long: ${valueBytes} is the limit`;
        throw new RangeError(fatal);
      }
    }
    if (count >= keysPerDocument) {
      fatal = `more than ${keysPerDocument} keys emitted for one document`;
      throw new RangeError(fatal);
    }
    upper += 3 * (keyText.length + valueText.length);
    if (upper > rowsBytes) {
      if (exact < 0) exact = utf8Length(rows) - count * (mark.length + 2);
      const bytes = exact + utf8Length(keyText) + utf8Length(valueText);
      if (bytes > rowsBytes) throw new RangeError(`rows of ${bytes} bytes for one document: ${rowsBytes} is the limit`);
      exact = bytes;
    }
    count++;
    rows += mark + keyText + "\n" + valueText + "\n";
  }

  function sum(values) {
    let total = 0;
    for (let index = 0; index < values.length; index++) total += values[index];
    return total;
  }

  function dateToArray(date) {
    date = date.getUTCFullYear ? date : new Date(date);
    return isFinite(date)
      ? [date.getUTCFullYear(), date.getUTCMonth() + 1, date.getUTCDate(),
         date.getUTCHours(), date.getUTCMinutes(), date.getUTCSeconds()]
      : null;
  }

  const BASE64 = fromEntries(
    [..."ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"].map((sign, value) => [sign, value]),
  );
  Object.setPrototypeOf(BASE64, null);

  function decodeBase64(text) {
    if (typeof text !== "string") throw new TypeError("decodeBase64 takes a string");
    const length = text.length;
    if (length % 4 !== 0) throw new RangeError("base64 text whose length is not a multiple of 4");
    const padding = length > 0 && text[length - 1] === "=" ? (text[length - 2] === "=" ? 2 : 1) : 0;
    const bytes = [];
    let size = 0;
    for (let index = 0; index < length; index += 4) {
      let bits = 0;
      for (let offset = 0; offset < 4; offset++) {
        const last = index + offset >= length - padding;
        const value = last ? 0 : BASE64[text[index + offset]];
        if (value === undefined) throw new RangeError("text that is not base64");
        bits = bits * 64 + value;
      }
      const end = index + 4 >= length ? 3 - padding : 3;
      for (let byte = 0; byte < end; byte++) bytes[size++] = (bits >> (16 - 8 * byte)) & 0xff;
    }
    return bytes;
  }

  function log(text) {
    if (typeof text !== "string") throw new TypeError("log takes a string");
    if (logCount >= MAX_LOG) return;
    logCount++;
    logged += stringify(text.length > MAX_REASON ? slice(text, 0, MAX_REASON) + "..." : text) + "\n";
  }

  // The host's library pushes the arguments of its calls.
  defineProperty(Array.prototype, "push", { writable: false, configurable: false });

  const helpers = { emit, sum, dateToArray, decodeBase64, log };
  for (const name of Object.keys(helpers)) {
    defineProperty(globalThis, name, { value: helpers[name], writable: false, configurable: false });
  }

  function parses(body) {
    try {
      Function(body);
      return true;
    } catch {
      return false;
    }
  }

  // Throws unless the text is an expression whose brackets close none of ours, and ours none of its.
  function parseAlone(source) {
    Function(`return (\n${source}\n)`);
    Function(`return [\n${source}\n]`);
  }

  function isAlone(source) {
    try {
      parseAlone(source);
      return true;
    } catch {
      return false;
    }
  }

  // Where the first sign is, from a place between two tokens on, that is no blank, comment or semicolon.
  function pastTrivia(text, at) {
    for (;;) {
      if (/[\s;]/.test(text[at] ?? "")) {
        at++;
      } else if (text.startsWith("//", at)) {
        while (at < text.length && !/[\n\r\u2028\u2029]/.test(text[at])) at++;
      } else if (text.startsWith("/*", at) && text.indexOf("*/", at + 2) >= 0) {
        at = text.indexOf("*/", at + 2) + 2;
      } else {
        return at;
      }
    }
  }

  // The beginnings of a text that end before (or with) that sign, and behind which there is nothing but trivia.
  function beginnings(text, sign, withSign) {
    const found = [];
    let at = text.length;
    for (let tries = 0; tries < MAX_ENDS && at > 0; tries++) {
      at = text.lastIndexOf(sign, at - 1);
      if (at < 0) break;
      const end = at + (withSign ? 1 : 0);
      if (pastTrivia(text, end) === text.length) found.push(text.slice(0, end));
    }
    return found;
  }

  // The text without semicolons around it, which would not stand in parentheses. Throws what V8 says of it.
  function expressionOf(source) {
    const text = source.slice(pastTrivia(source, 0));
    if (isAlone(text)) return text;
    for (const head of beginnings(text, ";", false)) if (isAlone(head)) return head;
    parseAlone(text);
  }

  // Whether an expression is one function, found out by parsing alone. A class may extend what is called or looked
  // up, of which only a function (or an object) ends in a brace. An arrow function (or an assignment, which makes
  // no harm) is an expression that may be a computed member name and not an operand.
  function isFunction(source) {
    const text = source.slice(pastTrivia(source, 0));
    if (/^(?:async(?:[^\S\n\r\u2028\u2029]|\/\*[^\n\r\u2028\u2029]*?\*\/)+)?function(?![\w$\\\u0080-\uffff])/.test(text)) {
      return beginnings(text, "}", true).some((head) => isAlone(head) && parses(`(class extends ${head}{})`));
    }
    if (parses(`({[${text}\n]:0})`) && !parses(`({[0||${text}\n]:0})`)) return true;
    if (text[0] !== "(") return false;
    return beginnings(text, ")", true).some((head) => isAlone(head.slice(1, -1)) && isFunction(head.slice(1, -1)));
  }

  // Takes the source; gives the reason why it is no expression, nothing if it is one function, and "?" if only its
  // value can tell. Runs none of it.
  function check(source) {
    try {
      return isFunction(expressionOf(source)) ? "" : "?";
    } catch (error) {
      return describe(error);
    }
  }

  // Takes [source, ...]; gives "" or the number of the function that is none, a tab, and why.
  function load(text) {
    const sources = parse(text);
    const compiled = [];
    let index = 0;
    try {
      // All of them before the first is evaluated, which may run code.
      for (; index < sources.length; index++) sources[index] = expressionOf(sources[index]);
    } catch (error) {
      return index + "\t" + stringify(describe(error));
    }
    for (index = 0; index < sources.length; index++) {
      try {
        const value = evaluate(`(${sources[index]}\n)`);
        if (typeof value !== "function") throw new SyntaxError(NO_FUNCTION);
        defineProperty(compiled, index, { __proto__: null, value });
      } catch (error) {
        return index + "\t" + stringify(describe(error));
      }
    }
    functions = compiled;
    return "";
  }

  function begin(text, parts) {
    position = 0;
    dropped = pendingDropped = logged = failure = "";
    logCount = 0;
    active = false;
    sections = [];
    pending = [];
    for (let index = 0; index < parts; index++) {
      defineProperty(sections, index, { __proto__: null, value: "", writable: true });
      defineProperty(pending, index, { __proto__: null, value: "", writable: true });
    }
    try {
      batch = parse(text);
    } catch {
      batch = [];
      failure = "unparsed";
    }
  }

  // Runs the map functions over [[id, rev, seq, vb, expiration, flags, type, doc, xattrs] or null, ...].
  function map() {
    const until = now() + sliceMilliseconds;
    const views = functions.length;
    let size = 0;
    while (position < batch.length && failure === "") {
      const item = batch[position];
      if (item !== null) {
        const doc = item[7];
        const meta = {
          id: item[0], rev: item[1], seq: item[2], vb: item[3], expiration: item[4], flags: item[5], type: "json",
          xattrs: item[8],
        };
        if (item[6] !== 0) {
          meta.type = "base64";
          meta.att_reason = item[6] === 1 ? "invalid_json" : "non-JSON mode";
        }
        mark = position + "\n";
        pendingDropped = "";
        for (let view = 0; view < views; view++) {
          const call = functions[view];
          rows = fatal = "";
          count = upper = 0;
          exact = -1;
          active = true;
          try {
            call(doc, meta);
            active = false;
          } catch (error) {
            active = false;
            rows = "";
            pendingDropped += position + "\t" + view + "\t" + stringify(describe(error)) + "\n";
          }
          if (fatal !== "") {
            failure = view + "\t" + stringify(fatal);
            return;
          }
          pending[view] = rows;
        }
        for (let view = 0; view < views; view++) {
          sections[view] += pending[view];
          size += pending[view].length;
        }
        dropped += pendingDropped;
      }
      position++;
      if (now() >= until || size > MAX_OUTPUT) return;
    }
  }

  // Runs the reduce function over [[keys, values, rereduce], ...].
  function reduce() {
    const until = now() + sliceMilliseconds;
    while (position < batch.length && failure === "") {
      const item = batch[position];
      const call = functions[0];
      try {
        let text = stringify(call(item[0], item[1], item[2]));
        if (text === undefined) text = "null";
        if (text.length * 3 > reductionBytes) {
          const bytes = utf8Length(text);
          if (bytes > reductionBytes) {
            failure = "0\t" + stringify(`Reduction too large (${bytes} bytes)`);
            return;
          }
        }
        sections[0] += text + "\n";
      } catch (error) {
        failure = "0\t" + stringify(describe(error));
        return;
      }
      position++;
      if (now() >= until) return;
    }
  }

  // What is finished, as sections: how many items, the failure, dropped documents, log, then each function's rows.
  function take() {
    let text = position + (position < batch.length ? "+" : "") + "\f" + failure + "\f" + dropped + "\f" + logged;
    dropped = logged = "";
    for (let index = 0; index < sections.length; index++) {
      text += "\f" + sections[index];
      sections[index] = "";
    }
    if (position >= batch.length) batch = [];
    return text;
  }

  return function (operation, text) {
    switch (operation) {
      case "map":
        begin(text, functions.length);
        map();
        return take();
      case "map on":
        map();
        return take();
      case "reduce":
        begin(text, 1);
        reduce();
        return take();
      case "reduce on":
        reduce();
        return take();
      case "take":
        return take();
      case "load":
        return load(text);
      case "check":
        return check(text);
    }
  };
})
