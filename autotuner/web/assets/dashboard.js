// Search and sort of the overview, and what changes while a page is open.
"use strict";
(() => {
  const page = document.body.dataset.page;
  const connection = document.getElementById("connection");
  const say = (text) => { connection.textContent = text; };

  // ----- the overview -----
  const table = document.getElementById("symbols");
  const body = table && table.tBodies[0];
  let sorted = { column: -1, down: false };

  const key = (row, column) => {
    const text = row.cells[column].dataset.sort ?? "";
    const number = text.trim() === "" ? NaN : Number(text);
    return Number.isNaN(number) ? text : number;
  };

  const compare = (column, down) => (one, other) => {
    const [a, b] = [key(one, column), key(other, column)];
    if (a === "" || b === "") return (a === "") - (b === "");  // what is not known comes last either way
    const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
    return down ? -order : order;
  };

  const sort = (column, down) => {
    sorted = { column, down };
    body.replaceChildren(...[...body.rows].sort(compare(column, down)));
    for (const [place, head] of [...table.tHead.rows[0].cells].entries()) {
      if (place === column) head.setAttribute("aria-sort", down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
  };

  const search = document.getElementById("search");
  const state = document.getElementById("state");
  const filter = () => {
    const wanted = search.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of body.rows) {
      const text = row.textContent.toLowerCase();
      const words = row.dataset.words.split(" ");
      row.hidden = !wanted.every((word) => text.includes(word)) || (state.value !== "" && !words.includes(state.value));
      shown += !row.hidden;
    }
    const all = body.rows.length;
    document.getElementById("count").textContent = shown === all ? `${all} symbols` : `${shown} of ${all} symbols`;
  };

  if (table) {
    for (const [column, head] of [...table.tHead.rows[0].cells].entries()) {
      head.querySelector("button").addEventListener("click", () => {
        sort(column, sorted.column === column ? !sorted.down : head.classList.contains("number") && column === 2);
      });
    }
    search.addEventListener("input", filter);
    state.addEventListener("change", filter);
    filter();  // a browser keeps what was typed when a page is loaded again
  }

  const parsed = (html) => new DOMParser().parseFromString(html, "text/html");

  const putRow = (symbol, html) => {
    const row = parsed(`<table>${html}</table>`).querySelector("tr");
    if (!row || !body) return;
    const old = [...body.rows].find((each) => each.dataset.symbol === symbol);
    if (old) old.replaceWith(row); else body.append(row);
    row.classList.add("flash");
  };

  // ----- a symbol, the daemon: the parts that differ are put in place of the old ones -----
  const parts = ["head", "run", "checks", "trials", "compiled", "history", "state"];
  const refresh = async () => {
    const answer = await fetch(location.href);
    if (!answer.ok) return;
    const fresh = parsed(await answer.text());
    for (const id of parts) {
      const [old, now] = [document.getElementById(id), fresh.getElementById(id)];
      if (old && now && old.outerHTML !== now.outerHTML) { old.replaceWith(now); now.classList.add("flash"); }
      else if (!old !== !now) { location.reload(); return; }
    }
    for (const figure of document.querySelectorAll("main figure.chart")) {
      const now = fresh.getElementById(figure.id);
      if (!now || figure.closest("#hindcast")) continue;
      const data = (each) => each.querySelector("script")?.textContent;
      if (data(figure) !== data(now)) figure.replaceWith(now);
    }
    document.dispatchEvent(new Event("charts-changed"));
  };

  let waiting = null;
  const soon = () => { waiting ??= setTimeout(() => { waiting = null; refresh().catch(() => {}); }, 1000); };

  // ----- the forecast beside what came: made on the server when somebody looks -----
  const hindcast = document.getElementById("hindcast");
  if (hindcast) {
    fetch(hindcast.dataset.from).then((answer) => answer.text()).then((html) => {
      const figure = parsed(html).querySelector("figure");
      if (!figure) return;
      hindcast.replaceChildren(figure);
      document.dispatchEvent(new Event("charts-changed"));
    }).catch(() => {});
  }

  // ----- events -----
  if (!["overview", "symbol", "daemon"].includes(page)) return;
  const events = new EventSource(`/events?since=${encodeURIComponent(document.body.dataset.state)}`);
  const symbol = document.querySelector("h1")?.textContent;
  events.addEventListener("open", () => say("live"));
  events.addEventListener("error", () => say("no connection, trying again"));
  events.addEventListener("rows", (event) => {
    const rows = JSON.parse(event.data);
    if (page === "overview") {
      for (const [name, html] of Object.entries(rows)) putRow(name, html);
      if (!body) { location.reload(); return; }
      if (sorted.column >= 0) sort(sorted.column, sorted.down);
      filter();
    } else if (page === "daemon" || symbol in rows) soon();
  });
  events.addEventListener("changed", () => { if (page !== "overview") soon(); });
  events.addEventListener("reload", () => { if (page === "overview") location.reload(); else soon(); });
})();
