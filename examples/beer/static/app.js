// Makes two things quicker where scripts run; without, the same forms work by whole pages.
"use strict";

(() => {
  const WAIT_MS = 150;
  const live = document.getElementById("live");

  // Say something to people who do not see the page change; to all if it went wrong.
  function say(text, wrong) {
    live.className = wrong ? "problem" : "hidden";
    live.textContent = text;
  }

  async function read(address, options) {
    const response = await fetch(address, {credentials: "same-origin", ...options});
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    return {response, page};
  }

  // Put a part of another page in place of this page's part of that name.
  function take(page, id) {
    const fresh = page.getElementById(id);
    if (fresh) {
      document.getElementById(id).replaceWith(fresh);
    }
    return fresh;
  }

  const search = document.getElementById("search");
  if (search) {
    let timer, asked;
    const find = async () => {
      asked?.abort();
      asked = new AbortController();
      const address = new URL(search.action);
      if (search.q.value.trim()) {
        address.searchParams.set("q", search.q.value);
      }
      try {
        const {page} = await read(address, {signal: asked.signal});
        if (!take(page, "results")) {
          throw new Error(page.title);
        }
        history.replaceState(null, "", address);
        say(page.getElementById("found")?.textContent ?? document.getElementById("found")?.textContent ?? "");
      } catch (error) {
        if (error.name !== "AbortError") {
          say("The search did not work. Press Enter to try again.", true);
        }
      }
    };
    search.q.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(find, WAIT_MS);
    });
    search.addEventListener("submit", () => {
      clearTimeout(timer);
      asked?.abort();
    });
  }

  const like = document.getElementById("like");
  if (like) {
    like.addEventListener("submit", async event => {
      event.preventDefault();
      const button = like.querySelector("button");
      button.setAttribute("aria-disabled", "true");
      try {
        const {response, page} = await read(like.action, {
          method: "POST",
          body: new URLSearchParams(new FormData(like)),
        });
        if (response.ok && take(page, "likes")) {
          say(document.getElementById("likes").textContent);
        } else {
          location.reload();
        }
      } catch {
        say("Your like did not arrive. Try again in a moment.", true);
      }
      button.removeAttribute("aria-disabled");
    });
  }
})();
