// Sign in: a password, a token, or what the browser sends by itself.

import { current, request, signIn, signOut, value } from "./api.mjs";
import { h, show } from "./dom.mjs";
import { announce, choice, field, form, notice } from "./ui.mjs";

export async function showSignIn({ query, open, go }) {
  const place = open({ title: "Sign in" });
  const error = h("div", { role: "alert" });
  const fail = (text) => show(error, notice("bad", h("p", text)));
  const user = h("input", { autocomplete: "username", autocapitalize: "none", spellcheck: "false", name: "user", required: true });
  const password = h("input", { type: "password", autocomplete: "current-password", name: "password", required: true });
  const token = h("input", { type: "password", autocomplete: "off", name: "token", required: true });
  const submit = h("button.primary", { type: "submit" }, "Sign in");
  const details = h("div");
  const kind = choice([["basic", "User name and password"], ["bearer", "Token or API key"], ["browser", "Certificate, or a proxy's session"]], "basic", { change: () => draw() });

  function draw() {
    show(details, {
      basic: () => [field("User name", user), field("Password", password)],
      bearer: () => field("Token", token, "sent as Authorization: Bearer"),
      browser: () => h("p.quiet", "Nothing to enter: the browser sends its certificate or cookie by itself."),
    }[kind.value]());
  }

  async function enter() {
    const given = {
      basic: { kind: "basic", user: user.value, password: password.value },
      bearer: { kind: "bearer", token: token.value.trim() },
      browser: { kind: "browser" },
    }[kind.value];
    const before = current();
    signIn(given);
    submit.disabled = true;
    error.replaceChildren();
    try {
      const found = await value(request("GET", "v1/callerIdentity"));
      announce(`Signed in as ${found.user}.`);
      const to = query.get("from") ?? "";
      go(to.startsWith("#/") ? to : "#/");
    } catch (failure) {
      if (before.kind === "none") signOut();
      else signIn(before);
      fail(failure.isAboutCredentials && failure.code === "InvalidAuth" ? "The user name or the password is wrong." : failure.message);
      (kind.value === "bearer" ? token : password).select();
    } finally {
      submit.disabled = false;
    }
  }

  draw();
  if (query.get("wrong")) fail("The cluster does not accept these credentials any more.");
  show(
    place,
    form(enter, { class: "narrow" },
      h("p", "This gateway requires credentials. They are kept in this tab until you close it or sign out."),
      error,
      field("With", kind),
      details,
      submit,
    ),
  );
  user.focus();
}
