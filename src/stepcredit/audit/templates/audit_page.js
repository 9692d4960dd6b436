"use strict";
// The browser of responses. Texts of the data enter the page by textContent alone.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const rows = data.rows;
  const byRow = new Map(rows.map((row) => [row.row, row]));
  const MOST_SIDE_BY_SIDE = 3;
  const state = { row: null, token: null, visible: [] };

  function element(tag, text, className) {
    const made = document.createElement(tag);
    if (text !== undefined && text !== null) made.textContent = text;
    if (className) made.className = className;
    return made;
  }

  function option(select, value, text) {
    const made = element("option", text.length > 70 ? text.slice(0, 69) + "…" : text);
    made.value = value;
    select.append(made);
  }

  function shown(value) {
    if (value === null || value === undefined) return "–";
    return Number(value.toPrecision(3)).toString();
  }

  const counted = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

  // ---- values per token ----

  // The place in `ends` of the piece that holds a token; -1 past the last.
  function pieceOf(ends, token) {
    if (ends === null) return token;
    let low = 0, high = ends.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (ends[middle] < token) low = middle + 1; else high = middle;
    }
    return low < ends.length ? low : -1;
  }

  function valueAt(ends, values, token) {
    if (typeof values === "number") return values;
    const piece = pieceOf(ends, token);
    return piece < 0 || piece >= values.length ? null : values[piece];
  }

  // What a layer shows of a token under a method: {kind: "stage" | "stream", name}.
  function layerValue(row, method, layer, token) {
    if (layer.kind === "stream") {
      const stream = row.streams[layer.name];
      return stream ? valueAt(stream.ends, stream.values, token) : null;
    }
    const credit = row.methods[method];
    const values = credit && credit.stages[layer.name];
    return values === undefined || values === null ? null : valueAt(credit.ends, values, token);
  }

  function allValues(method, layer) {
    const found = [];
    for (const row of rows) {
      const credit = row.methods[method];
      const stream = row.streams[layer.name];
      const values = layer.kind === "stream" ? stream && stream.values : credit && credit.stages[layer.name];
      if (typeof values === "number") found.push(values); else if (values) for (const value of values) found.push(value);
    }
    return found.sort((a, b) => a - b);
  }

  // Middle and half-width of a layer's colours: 0 where values have both signs, else their median.
  const scales = new Map();
  function scaleOf(method, layer) {
    const key = JSON.stringify([layer.kind === "stream" ? "" : method, layer]);
    if (!scales.has(key)) {
      const values = allValues(method, layer);
      const at = (share) => values[Math.min(values.length - 1, Math.floor(share * values.length))] || 0;
      const middle = values.length && values[0] < 0 && values[values.length - 1] > 0 ? 0 : at(0.5);
      const width = Math.max(Math.abs(at(0.02) - middle), Math.abs(at(0.98) - middle)) || Math.abs(at(1) - middle) || 1;
      scales.set(key, { middle, width });
    }
    return scales.get(key);
  }

  function paint(span, value, scale) {
    if (value === null) return;
    const size = Math.min(Math.abs(value - scale.middle) / scale.width, 1) * 0.8;
    span.style.backgroundColor = `rgb(var(${value >= scale.middle ? "--above" : "--below"}) / ${size.toFixed(2)})`;
  }

  // ---- controls ----

  function layers() {
    const stages = new Set(), streams = new Set();
    for (const row of rows) {
      for (const credit of Object.values(row.methods)) Object.keys(credit.stages).forEach((name) => stages.add(name));
      Object.keys(row.streams).forEach((name) => streams.add(name));
    }
    stages.delete("advantage");
    const found = data.methods.length ? [{ kind: "stage", name: "advantage", text: "final advantage" }] : [];
    for (const name of streams) found.push({ kind: "stream", name, text: "stream: " + name });
    for (const name of stages) found.push({ kind: "stage", name, text: "stage: " + name });
    return found;
  }

  const allLayers = layers();
  const explained = data.methods.filter((name) => rows.some((row) => row.methods[name]));
  const orders = [["flip", "rank flips first"], ["file", "as in the file"]];
  data.methods.forEach((name, i) => orders.push([`best ${i}`, "best paid: " + name], [`worst ${i}`, "worst paid: " + name]));
  orders.push(["long", "longest first"], ["short", "shortest first"]);

  function fillControls() {
    allLayers.forEach((layer, i) => option(byId("layer"), String(i), layer.text));
    orders.forEach(([value, text]) => option(byId("order"), value, text));
    if (data.methods.length < 2) byId("order").value = "file";
    [...new Set(rows.map((row) => row.group))].forEach((group) => option(byId("group"), group, group));
    data.findings.forEach((finding, i) => { if (finding.rows.length) option(byId("finding"), String(i), finding.title); });
    explained.forEach((name, i) => {
      const box = element("input");
      box.type = "checkbox";
      box.value = name;
      box.checked = i < MOST_SIDE_BY_SIDE;
      const label = element("label");
      label.append(box, element("span", name));
      byId("methods").append(label);
    });
    byId("methods").hidden = explained.length < 2;
  }

  const chosenMethods = () => [...byId("methods").querySelectorAll("input:checked")].map((box) => box.value).slice(0, MOST_SIDE_BY_SIDE);
  const chosenLayer = () => allLayers[Number(byId("layer").value)] || null;

  function searchable(row) {
    if (row.lower === undefined) {
      const text = row.tokens ? row.tokens.join("") : row.text || "";
      row.lower = `${text}\n${row.prompt || ""}\n${row.group}\nline ${row.line}`.toLowerCase();
    }
    return row.lower;
  }

  const outcomeOf = (row) => (row.outcome === null ? "unknown" : row.outcome > 0 ? "right" : "wrong");

  function passes(row) {
    const search = byId("search").value.trim().toLowerCase();
    const shortest = byId("shortest").value, longest = byId("longest").value, finding = byId("finding").value;
    return (!byId("outcome").value || byId("outcome").value === outcomeOf(row))
      && (!byId("group").value || byId("group").value === row.group)
      && (shortest === "" || row.length >= Number(shortest))
      && (longest === "" || row.length <= Number(longest))
      && (finding === "" || data.findings[Number(finding)].rows.includes(row.row))
      && (!search || searchable(row).includes(search));
  }

  function order() {
    const [kind, which] = byId("order").value.split(" ");
    const mean = (row) => row.means[data.methods[Number(which)]];
    const keys = {
      flip: (a, b) => b.flip - a.flip, file: () => 0, long: (a, b) => b.length - a.length, short: (a, b) => a.length - b.length,
      best: (a, b) => mean(b) - mean(a), worst: (a, b) => mean(a) - mean(b),
    };
    return (a, b) => keys[kind](a, b) || a.row - b.row;
  }

  // ---- the list ----

  function showList() {
    state.visible = rows.filter(passes).sort(order());
    byId("count").textContent = `${state.visible.length} of ${rows.length} shown responses`;
    byId("list").replaceChildren(...state.visible.map(listItem));
    markCurrent();
  }

  function listItem(row) {
    const button = element("button", `line ${row.line} · group ${row.group} · ${outcomeOf(row)} · ${counted(row.length, "token")}`);
    button.type = "button";
    button.dataset.row = row.row;
    const paid = explained.map((name) => `${name} ${shown(row.means[name])}`).join(" · ");
    button.append(element("span", paid + (row.flip ? ` · moves ${shown(row.flip)} places` : ""), "paid"));
    button.addEventListener("click", () => go(row.row, null));
    const item = element("li");
    item.append(button);
    return item;
  }

  function markCurrent() {
    for (const button of byId("list").querySelectorAll("button")) {
      const current = Number(button.dataset.row) === state.row;
      button.setAttribute("aria-current", String(current));
      if (current) keepInView(byId("list"), button);
    }
  }

  // Scrolls a box, and not the page, so that something in it can be seen.
  function keepInView(box, inner) {
    const outside = box.getBoundingClientRect(), place = inner.getBoundingClientRect();
    if (place.top < outside.top) box.scrollTop -= outside.top - place.top;
    if (place.bottom > outside.bottom) box.scrollTop += place.bottom - outside.bottom;
  }

  // ---- a response ----

  function showDetail() {
    const row = byRow.get(state.row), detail = byId("detail");
    detail.replaceChildren();
    hideInspector();
    if (!row) {
      detail.append(element("p", state.row === null ? "Choose a response." : `The response number ${state.row} is not among those shown.`));
      return;
    }
    detail.append(element("h3", `Line ${row.line}, group ${row.group}`), facts(row));
    const named = data.findings.filter((finding) => finding.rows.includes(row.row)).map((finding) => finding.title);
    if (named.length) detail.append(folded(`Named by ${counted(named.length, "finding")}`, named.join("\n")));
    if (row.prompt) detail.append(folded("The prompt", row.prompt));
    if (row.tokens === null && row.text) detail.append(folded("The text", row.text, true));
    const panels = element("div", null, "panels"), layer = chosenLayer(), methods = chosenMethods();
    const wanted = layer === null || layer.kind === "stream" ? [null] : methods;
    wanted.forEach((method) => panels.append(panel(row, method, layer)));
    detail.append(panels);
    if (state.token !== null) choose(state.token);
  }

  function facts(row) {
    const outcome = row.outcome === null ? "outcome not known" : `outcome ${shown(row.outcome)}`;
    const parts = [outcome, counted(row.length, "trained token")];
    if (row.steps) parts.push(counted(row.steps.length, "step"));
    if (!row.format_ok) parts.push("format not kept");
    const made = element("p", parts.join(", ") + ".", "facts");
    return made;
  }

  function folded(title, text, open) {
    const made = element("details"), body = element("div", text, "plain");
    made.open = Boolean(open);
    body.tabIndex = 0;
    made.append(element("summary", title), body);
    return made;
  }

  function panel(row, method, layer) {
    const made = element("section", null, "panel");
    const name = method === null ? (layer ? layer.text : "tokens") : method;
    made.append(element("h4", method === null ? name : `${name}: mean advantage ${shown(row.means[method])}, place ${shown(row.places[method])} in its group`));
    const credit = method === null ? null : row.methods[method];
    if (credit && credit.stages[layer.name] === undefined) made.append(element("p", "This method has no such stage here.", "soft"));
    else if (layer) made.append(scaleBar(scaleOf(method, layer)));
    made.append(tokenBox(row, method, layer));
    return made;
  }

  function scaleBar(scale) {
    const made = element("div", null, "scale");
    made.append(element("span", shown(scale.middle - scale.width)), element("span", null, "bar"), element("span", shown(scale.middle + scale.width)));
    made.append(element("span", `(no colour: ${shown(scale.middle)})`));
    return made;
  }

  function tokenBox(row, method, layer) {
    const box = element("div", null, "tokens");
    box.tabIndex = 0;
    box.dataset.method = method === null ? "" : method;
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", `Tokens${method === null ? "" : " under " + method}; arrow keys move between them`);
    const scale = layer ? scaleOf(method, layer) : null, ends = new Set(row.steps || []);
    const texts = row.tokens || Array.from({ length: Math.min(row.length, 2000) }, () => "▪ ");
    let token = 0;
    texts.forEach((text, place) => {
      const span = element("span", text.replaceAll("\n", "↵\n").replaceAll("\t", "⇥\t"));
      if (row.mask && row.mask[place] === "0") span.className = "untrained";
      else {
        span.dataset.token = token;
        if (ends.has(token)) span.className = "end";
        if (layer) paint(span, layerValue(row, method, layer, token), scale);
        token += 1;
      }
      box.append(span);
    });
    if (token < row.length) box.append(element("span", ` … ${row.length - token} more tokens are not shown`, "untrained"));
    return box;
  }

  // ---- the selected token ----

  function choose(token) {
    const row = byRow.get(state.row);
    if (!row) return;
    for (const box of byId("detail").querySelectorAll(".tokens")) markChunk(box, row, token);
    showInspector(row, token);
  }

  // Marks a token, and the chunk of the box's method (or the step) that it is in.
  function markChunk(box, row, token) {
    for (const span of box.querySelectorAll(".chunk, .chosen")) span.classList.remove("chunk", "chosen");
    const credit = row.methods[box.dataset.method], ends = credit ? credit.ends : row.steps;
    const piece = ends ? pieceOf(ends, token) : -1;
    const first = piece < 0 ? token : piece ? ends[piece - 1] + 1 : 0, last = piece < 0 ? token : ends[piece];
    for (const span of box.querySelectorAll("[data-token]")) {
      const at = Number(span.dataset.token);
      if (at >= first && at <= last) span.classList.add("chunk");
      if (at === token) { span.classList.add("chosen"); keepInView(box, span); }
    }
  }

  function showInspector(row, token) {
    const box = byId("inspector"), close = element("button", "Close");
    close.type = "button";
    close.addEventListener("click", hideInspector);
    box.replaceChildren(close, element("p", placeOf(row, token)));
    for (const [name, stream] of Object.entries(row.streams)) box.append(element("p", `stream ${name}: ${shown(valueAt(stream.ends, stream.values, token))}`));
    const methods = explained.filter((name) => row.methods[name]);
    if (methods.length) box.append(stageTable(row, methods, token));
    box.hidden = false;
  }

  function placeOf(row, token) {
    const span = byId("detail").querySelector(`[data-token="${token}"]`);
    const text = span && row.tokens ? `“${span.textContent.trim() || "space"}”, ` : "";
    const step = row.steps ? pieceOf(row.steps, token) : -1;
    return `${text}token ${token + 1} of ${row.length}${step < 0 ? "" : `, step ${step + 1} of ${row.steps.length}`}`;
  }

  function stageTable(row, methods, token) {
    const names = [...new Set(methods.flatMap((method) => Object.keys(row.methods[method].stages)))].filter((name) => name !== "advantage");
    const table = element("table"), head = element("tr");
    head.append(element("th", "stage"), ...methods.map((method) => element("th", method, "n")));
    table.append(head);
    for (const name of [...names, "advantage"]) {
      const line = element("tr");
      line.append(element("td", name), ...methods.map((method) => element("td", shown(layerValue(row, method, { kind: "stage", name }, token)), "n")));
      table.append(line);
    }
    return table;
  }

  function hideInspector() { byId("inspector").hidden = true; }

  // ---- deep links: #r=ROW, then &t=TOKEN or &s=STEP ----

  function readHash() {
    const found = new URLSearchParams(location.hash.slice(1));
    if (!found.has("r")) return false;
    state.row = Number(found.get("r"));
    const row = byRow.get(state.row);
    const step = found.has("s") && row && row.steps ? row.steps[Number(found.get("s"))] : undefined;
    const token = found.has("t") ? Number(found.get("t")) : step;
    state.token = Number.isInteger(token) && row && token >= 0 && token < row.length ? token : null;
    markCurrent();
    showDetail();
    return true;
  }

  function go(row, token) {
    const hash = `#r=${row}${token === null ? "" : `&t=${token}`}`;
    if (location.hash === hash) return;
    history.replaceState(null, "", hash);
    if (row === state.row && token !== null) { state.token = token; choose(token); } else readHash();
  }

  function onHash() {
    if (readHash()) byId("detail").scrollIntoView({ block: "start" });
  }

  // ---- events ----

  function move(by) {
    const place = state.visible.findIndex((row) => row.row === state.row);
    const next = state.visible[Math.min(Math.max(place + by, 0), state.visible.length - 1)];
    if (next) go(next.row, null);
  }

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (event.key === "Escape") { hideInspector(); if (typing) event.target.blur(); }
    if (typing) return;
    const steps = { j: 1, k: -1 }, arrows = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10 };
    if (event.key === "/") byId("search").focus();
    else if (steps[event.key]) move(steps[event.key]);
    else if (arrows[event.key] && event.target.classList.contains("tokens")) moveToken(arrows[event.key]);
    else return;
    event.preventDefault();
  }

  function moveToken(by) {
    const row = byRow.get(state.row), from = state.token === null ? (by > 0 ? -1 : 0) : state.token;
    if (row) go(row.row, Math.min(Math.max(from + (state.token === null ? Math.sign(by) : by), 0), row.length - 1));
  }

  const tokenOf = (event) => event.target.dataset && event.target.dataset.token;

  function listen() {
    byId("controls").addEventListener("submit", (event) => event.preventDefault());
    for (const id of ["search", "outcome", "group", "finding", "shortest", "longest", "order"]) byId(id).addEventListener("input", showList);
    byId("layer").addEventListener("input", showDetail);
    byId("methods").addEventListener("change", (event) => {
      if (chosenMethods().length === 0) event.target.checked = true;
      showDetail();
    });
    byId("detail").addEventListener("click", (event) => { if (tokenOf(event) !== undefined) go(state.row, Number(tokenOf(event))); });
    byId("detail").addEventListener("mouseover", (event) => { if (tokenOf(event) !== undefined) showInspector(byRow.get(state.row), Number(tokenOf(event))); });
    document.addEventListener("keydown", onKey);
    window.addEventListener("hashchange", onHash);
  }

  fillControls();
  listen();
  showList();
  if (location.hash.startsWith("#r=")) onHash();
  else if (state.visible.length) { state.row = state.visible[0].row; markCurrent(); showDetail(); }
})();
