"use strict";
// Without this script every page can be read, and every form can be sent. It adds: parts of a page
// that change by themselves, the progress of an upload, choosing all rows, and the key "/".
(() => {
  const PAUSE_MS = 700, POLL_MS = 15000, RETRY_MS = 3000;
  const main = document.getElementById("main");
  const said = document.getElementById("said");
  let stream = null, poll = 0, due = 0, retry = 0, watch = 0, pause = PAUSE_MS, isAsking = false;

  let asOf = "when it was opened";
  function say(text) {
    if (!text) asOf = "at " + new Date().toLocaleTimeString();
    if (said.textContent !== text) said.textContent = text;
  }
  const parts = () => [...main.querySelectorAll("[data-live]")];

  // Parts are replaced one by one, so that what is typed or chosen elsewhere stays.
  async function refresh() {
    due = 0;
    if (document.hidden) return;
    if (isAsking) return soon();  // what changes meanwhile may not be in the answer
    isAsking = true;
    const began = performance.now();
    try {
      const reply = await fetch(location.href, { headers: { "X-Fragment": "1", Accept: "text/html" } });
      if (reply.ok) show(new DOMParser().parseFromString(await reply.text(), "text/html"));
      say(reply.status === 401 ? "You are signed out, so this page no longer changes: sign in again." : "");
    } catch {  // the stream says when the server is back
      say("The server does not answer: this page is as it was " + asOf + ".");
    }
    // A page that takes long to make is asked for less often.
    pause = Math.min(POLL_MS, Math.max(PAUSE_MS, 9 * (performance.now() - began)));
    isAsking = false;
    watchAgain();
  }
  function show(fresh) {
    const isSame = parts().every((part) => fresh.getElementById(part.id)) &&
      fresh.querySelectorAll("[data-live]").length === parts().length;
    if (!isSame) {  // such as: there is a first device
      const left = document.getElementById("left");  // what an action warned of is said once
      if (!main.contains(document.activeElement))
        main.replaceChildren(...(left ? [left] : []), ...fresh.body.childNodes);
      return;
    }
    for (const old of parts()) {
      const now = fresh.getElementById(old.id);
      const inUse = old.contains(document.activeElement) || old.querySelector("input:checked");
      if (inUse || now.outerHTML === old.outerHTML) continue;
      const folded = now.querySelectorAll("details");
      old.querySelectorAll("details").forEach((each, at) => { if (folded[at]) folded[at].open = each.open; });
      old.replaceWith(document.adoptNode(now));
    }
  }
  // What no stream tells of, such as how far a download is.
  function watchAgain() {
    clearTimeout(watch);
    const seconds = parts().map((part) => +part.dataset.poll).filter(Boolean);
    if (seconds.length) watch = setTimeout(refresh, 1000 * Math.min(...seconds));
  }
  function soon() { if (!due) due = setTimeout(refresh, pause); }

  function listen() {
    if (stream || document.hidden || !parts().length) return;
    // What changes between the page and the stream is told by it.
    stream = new EventSource("/events?last_event_id=" + main.dataset.seen);
    for (const kind of ["devices", "rollouts", "releases", "hold", "audit", "rejected", "all"])
      stream.addEventListener(kind, (event) => {
        if (kind === "all" || parts().some((p) => p.dataset.live.split(" ").includes(kind))) soon();
      });
    stream.onopen = () => { clearInterval(poll); poll = 0; if (said.textContent) soon(); };
    stream.onerror = () => {
      soon();  // is the server away, or this stream alone?
      if (!poll) poll = setInterval(refresh, POLL_MS);
      if (stream && stream.readyState === EventSource.CLOSED) {
        stream = null;  // refused: there are too many
        if (!retry) retry = setTimeout(() => { retry = 0; listen(); }, RETRY_MS * 5);
      }
    };
  }
  function leave() { if (stream) stream.close(); stream = null; clearInterval(poll); poll = 0; }
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) leave(); else { listen(); soon(); }
  });
  addEventListener("pagehide", leave);
  listen();
  watchAgain();

  // Choosing rows
  main.addEventListener("change", (event) => {
    const box = event.target, form = box.form;
    if (box.matches?.("input[data-all]"))
      for (const each of form.querySelectorAll("input[name=key]")) each.checked = box.checked;
    if (box.matches?.("input[data-all], input[name=key]")) {
      const count = form.querySelectorAll("input[name=key]:checked").length;
      for (const each of form.querySelectorAll("[data-chosen]")) each.textContent = count;
    }
  });

  // Uploads: the file is the body of the request, so it is never in memory
  function send(form, file) {
    const bar = form.querySelector("progress"), out = form.querySelector("output");
    if (!file.size) { out.textContent = "This file is empty."; return; }
    const sent = new XMLHttpRequest();
    sent.open("POST", form.dataset.upload + "&name=" + encodeURIComponent(file.name));
    sent.setRequestHeader("Content-Type", "application/octet-stream");
    sent.setRequestHeader("Accept", "application/json");
    sent.setRequestHeader("X-Form-Token", form.elements.form_token.value);
    bar.hidden = false;
    sent.upload.onprogress = (event) => {
      bar.max = event.total; bar.value = event.loaded;
      out.textContent = Math.round(100 * event.loaded / event.total) + " % of " + event.total.toLocaleString("en") + " bytes";
    };
    sent.onload = () => {
      let answer = {};
      try { answer = JSON.parse(sent.responseText); } catch { /* not ours: a proxy's page */ }
      if (sent.status < 300 && answer.page) location.href = answer.page;
      else out.textContent = answer.detail || "It was not taken: status " + sent.status + ".";
    };
    sent.onerror = () => { out.textContent = "The connection was lost. Nothing was published."; };
    sent.send(file);
  }
  for (const form of document.querySelectorAll("form[data-upload]")) {
    const input = form.querySelector("input[type=file]"), drop = form.querySelector(".drop");
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (input.files[0]) send(form, input.files[0]);
    });
    input.addEventListener("change", () => { if (input.files[0]) send(form, input.files[0]); });
    for (const kind of ["dragenter", "dragover", "dragleave", "drop"])
      drop.addEventListener(kind, (event) => {
        event.preventDefault();
        drop.classList.toggle("over", kind === "dragenter" || kind === "dragover");
        if (kind === "drop" && event.dataTransfer.files[0]) send(form, event.dataTransfer.files[0]);
      });
  }

  document.addEventListener("keydown", (event) => {
    const search = document.querySelector("input[type=search]");
    if (event.key !== "/" || !search || event.target.matches("input, select, textarea")) return;
    event.preventDefault();
    search.focus();
  });
})();
