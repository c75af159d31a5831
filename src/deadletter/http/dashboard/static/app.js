/* What a page does beyond reading: live news without moving a row, keys, copying, selecting. */
(() => {
  "use strict";

  const line = document.getElementById("line");
  const say = (text) => {
    line.textContent = text;
    line.hidden = text === "";
  };

  /* The connection: its loss is shown, and what was missed meanwhile is fetched once it is back. A browser has few
     connections for one server, so a tab that nobody looks at gives its own back. */
  const REST_MS = 60000;
  let source = null;
  let lost = false;
  let resting = false;
  let restLater = 0;
  htmx.createEventSource = (url) => (source = new EventSource(url));
  document.body.addEventListener("htmx:sseError", () => {
    delete document.body.dataset.live;
    if (resting) return;
    lost = true;
    say("The connection to the server is lost. What you see may be old; it is tried again.");
  });
  document.body.addEventListener("htmx:sseOpen", () => {
    document.body.dataset.live = "";
    refresh(); // something may have happened since the page was made
    if (!lost && !resting) return;
    lost = resting = false;
    say("");
    if (pageIsList()) news(0);
  });
  document.addEventListener("visibilitychange", () => {
    clearTimeout(restLater);
    if (document.visibilityState === "hidden") {
      restLater = setTimeout(() => {
        if (!source) return;
        resting = true;
        source.close();
        delete document.body.dataset.live;
      }, REST_MS);
    } else if (resting && source) {
      source.onerror(new Event("rested")); // a closed source that fails is opened anew by the extension
    }
  });
  const pageIsList = () => document.querySelector("[data-news]") !== null;

  /* At most one look a second, and always one after the last event. */
  let looking = 0;
  const refresh = () => {
    if (looking) return;
    looking = setTimeout(() => {
      looking = 0;
      document.body.dispatchEvent(new CustomEvent("refresh"));
    }, 1000);
  };

  /* News are counted in a badge; no row moves, appears or goes while somebody reads. */
  let fresh = 0;
  const news = (more) => {
    fresh += more;
    for (const badge of document.querySelectorAll("[data-news]")) {
      const noun = badge.dataset.newsOf;
      badge.textContent = fresh === 0 ? "There may be news: show them" : `${fresh.toLocaleString("en")} new ${fresh === 1 ? noun : noun + "s"}: show ${fresh === 1 ? "it" : "them"}`;
      badge.hidden = false;
    }
  };
  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-news]")) window.location.reload();
  });

  /* A search that takes long goes on by itself, piece by piece; whoever has seen enough stops it. */
  const stoppable = () => {
    for (const stop of document.querySelectorAll("[data-stop]")) stop.hidden = false;
  };
  stoppable();
  document.body.addEventListener("htmx:afterSettle", stoppable);
  document.addEventListener("click", (event) => {
    const stop = event.target.closest("[data-stop]");
    if (!stop) return;
    htmx.trigger(stop.closest("#looking"), "htmx:abort");
    stop.hidden = true;
  });

  const said = { replayed: "retried", purged: "purged", erased: "erased", discarded: "gone", cancelled: "cancelled" };
  const change = (id, kind) => {
    for (const row of document.querySelectorAll(".row[data-id]")) {
      if (row.dataset.id !== id) continue;
      const mark = row.querySelector(".gone");
      if (!mark) continue;
      row.classList.add("is-gone");
      mark.textContent = said[kind];
      mark.hidden = false;
    }
    const head = document.querySelector("[data-letter]");
    if (head && head.dataset.letter === id) document.getElementById("changed").hidden = false;
  };

  const events = document.getElementById("events");
  const heard = (event) => {
    const kind = event.type.slice(4);
    let told = {};
    try {
      told = JSON.parse(event.detail.data);
    } catch {
      return;
    }
    if (kind === "dead") news(told.count || 1);
    if (kind === "gap") news(0);
    if (kind in said && told.task_id) change(told.task_id, kind);
    if (kind === "dead" && told.task_id) {
      const head = document.querySelector("[data-letter]");
      if (head && head.dataset.letter === told.task_id) document.getElementById("changed").hidden = false;
    }
    refresh();
  };
  for (const kind of ["dead", "replayed", "purged", "cancelled", "erased", "discarded", "paused", "resumed", "gap"]) {
    events.addEventListener(`sse:${kind}`, heard);
  }

  /* Ages grow while a page stays open. */
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const age = (seconds) => {
    const [unit, size] = units.find(([, size]) => seconds >= size) || ["s", 1];
    return `${Math.floor(seconds / size)} ${unit}`;
  };
  const grow = () => {
    for (const time of document.querySelectorAll("time[data-ago]")) {
      const seconds = (Date.now() - Date.parse(time.dateTime)) / 1000;
      time.textContent = Math.abs(seconds) < 1 ? "now" : seconds > 0 ? `${age(seconds)} ago` : `in ${age(-seconds)}`;
    }
  };
  setInterval(grow, 15000);

  /* Copying. */
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const source = document.getElementById(button.dataset.copy);
      try {
        await navigator.clipboard.writeText(source.textContent);
        const before = button.innerHTML;
        button.textContent = "Copied";
        setTimeout(() => { button.innerHTML = before; }, 1500);
      } catch {
        const range = document.createRange();
        range.selectNodeContents(source);
        const selection = window.getSelection();
        selection.removeAllRanges();
        selection.addRange(range);
      }
    });
  }

  /* Selecting. */
  const listing = document.getElementById("listing");
  const boxes = () => [...document.querySelectorAll('#listing input[name="ids"]')];
  const count = () => {
    const n = boxes().filter((box) => box.checked).length;
    for (const button of document.querySelectorAll("[data-selected]")) {
      button.disabled = n === 0;
      const verb = button.value === "purge" ? "Purge" : "Retry";
      button.textContent = n === 0 ? `${verb} selected…` : `${verb} ${n} selected…`;
    }
  };
  const every = document.querySelector("[data-all]");
  if (listing) {
    if (every) {
      every.hidden = false;
      every.addEventListener("change", () => {
        for (const box of boxes()) box.checked = every.checked;
        count();
      });
    }
    listing.addEventListener("change", count);
    count();
  }

  /* Keys: none while somebody writes. */
  const rows = () => [...document.querySelectorAll(".table .row[data-id], .cause")];
  let at = -1;
  const go = (to) => {
    const all = rows();
    if (all.length === 0) return;
    at = Math.max(0, Math.min(all.length - 1, to));
    for (const row of all) row.classList.remove("at");
    all[at].classList.add("at");
    const link = all[at].querySelector("a");
    if (link) link.focus({ preventScroll: true });
    all[at].scrollIntoView({ block: "nearest" });
  };
  const pages = { g: 0, l: 1, o: 2, p: 3, w: 4 };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input:not([type=checkbox]), textarea, select")) return;
    const links = document.querySelectorAll(".top nav a");
    if (event.key in pages) links[pages[event.key]].click();
    else if (event.key === "j") go(at + 1);
    else if (event.key === "k") go(at - 1);
    else if (event.key === "x" && at >= 0) {
      const box = rows()[at].querySelector('input[name="ids"]');
      if (box) { box.checked = !box.checked; count(); }
    } else if (event.key === "/") {
      const search = document.getElementById("f-error_contains");
      if (search) search.focus();
      else links[1].click();
      event.preventDefault();
    }
  });

  const diff = document.getElementById("diff") || document.getElementById("edit-error");
  if (diff) diff.scrollIntoView({ block: "center" });
})();
