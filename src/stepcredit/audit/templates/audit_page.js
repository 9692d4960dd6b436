// The browser of responses: the list with its filters, the keys, and the links to a place.
// `place` is what the address names of the response: a token, a step, or a method's chunk; `whole`
// is the response on the page; `drawn` counts drawings, so that a late one is dropped.
const state = { row: null, place: null, token: null, whole: null, drawn: 0, visible: [] };

// ---- controls ----

const orders = [["flip", "rank flips first"], ["file", "as in the file"]];
data.methods.forEach((name, i) => orders.push([`best ${i}`, "best paid: " + name], [`worst ${i}`, "worst paid: " + name]));
orders.push(["long", "longest first"], ["short", "shortest first"]);

function option(select, value, text) {
  const made = element("option", text.length > 70 ? text.slice(0, 69) + "…" : text);
  made.value = value;
  select.append(made);
}

function fillControls() {
  data.layers.forEach((layer, i) => option(byId("layer"), String(i), textOf(layer)));
  orders.forEach(([value, text]) => option(byId("order"), value, text));
  if (data.methods.length < 2) byId("order").value = "file";
  [...new Set(rows.map((row) => row.group))].forEach((group) => option(byId("group"), group, group));
  data.findings.forEach((finding, i) => { if (finding.rows.length) option(byId("finding"), String(i), finding.title); });
  explained.forEach((name, i) => {
    const box = element("input"), label = element("label");
    box.type = "checkbox";
    box.value = name;
    box.checked = i < MOST_SIDE_BY_SIDE;
    label.append(box, element("span", name));
    byId("methods").append(label);
  });
  byId("methods").hidden = explained.length < 2;
}

const boxes = () => [...byId("methods").querySelectorAll("input")];
const chosenMethods = () => boxes().filter((box) => box.checked).map((box) => box.value);
const chosenLayer = () => data.layers[Number(byId("layer").value)] || null;

// Ticks a method; of too many, the last of the others is no longer shown.
function showMethod(name) {
  const box = boxes().find((one) => one.value === name);
  if (box) box.checked = true;
  boxes().filter((one) => one.checked && one !== box).slice(MOST_SIDE_BY_SIDE - 1).forEach((one) => { one.checked = false; });
}

// Texts are unpacked for the first search, and kept.
async function readTexts() {
  await Promise.all(rows.map(async (row) => {
    if (row.lower !== undefined) return;
    const whole = await wholeOf(row).catch(() => ({}));
    const text = whole.tokens ? whole.tokens.join("") : whole.text || "";
    row.lower = `${text}\n${whole.prompt || ""}\n${row.group}\nline ${row.line}`.toLowerCase();
  }));
}

function passes(row) {
  const search = byId("search").value.trim().toLowerCase();
  const shortest = byId("shortest").value, longest = byId("longest").value, finding = byId("finding").value;
  return (!byId("outcome").value || byId("outcome").value === outcomeOf(row))
    && (!byId("group").value || byId("group").value === row.group)
    && (shortest === "" || row.length >= Number(shortest))
    && (longest === "" || row.length <= Number(longest))
    && (finding === "" || data.findings[Number(finding)].rows.includes(row.row))
    && (!search || row.lower.includes(search));
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

async function showList() {
  if (byId("search").value.trim()) await readTexts();
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
  button.append(element("span", paid + (row.flip ? ` · moves ${counted(row.flip, "place")}` : ""), "paid"));
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

// ---- the response ----

const TOO_OLD = "This browser cannot unpack the responses. Open the page in Firefox 113, Safari 16.4, or a version of Chrome "
  + "or Edge of 2022 or later. All else on this page can be read here.";

async function showDetail() {
  const row = byRow.get(state.row), detail = byId("detail"), drawn = ++state.drawn;
  state.whole = null;
  hideInspector();
  if (!row) {
    detail.replaceChildren(element("p", state.row === null ? "Choose a response." : `The response number ${state.row} is not among those shown.`));
    return;
  }
  const title = element("h3", `Line ${row.line}, group ${row.group}`);
  let parts, whole = null;
  try {
    whole = canUnpack ? await wholeOf(row) : null;
    parts = whole ? responseParts(whole, chosenLayer(), chosenMethods()) : [facts(row), element("p", TOO_OLD)];
  } catch (error) {
    parts = [facts(row), element("p", `This response cannot be read; the file may be damaged (${error.message}).`)];
  }
  if (drawn !== state.drawn) return;
  detail.replaceChildren(title, ...parts);
  state.whole = whole;
  state.token = whole ? tokenAt(whole, state.place) : null;
  if (state.token !== null) choose(state.token);
}

function choose(token) {
  for (const box of byId("detail").querySelectorAll(".tokens")) markChunk(box, state.whole, token);
  showInspector(state.whole, token);
}

// ---- deep links: #r=ROW, then &t=TOKEN, &s=STEP or &m=METHOD&c=CHUNK ----

function readHash() {
  const found = new URLSearchParams(location.hash.slice(1));
  if (!found.has("r")) return false;
  state.row = Number(found.get("r"));
  state.place = Object.fromEntries(found);
  if (found.has("m")) showMethod(found.get("m"));
  markCurrent();
  return true;
}

// The first token of the place that an address names; the last token of a step.
function tokenAt(whole, place) {
  let token = null;
  if (place && "t" in place) token = Number(place.t);
  else if (place && "s" in place && whole.steps) token = whole.steps[Number(place.s)];
  else if (place && "c" in place && own(whole.methods, place.m)) {
    const ends = whole.methods[place.m].ends, chunk = Number(place.c);
    token = ends === null || chunk === 0 ? chunk : chunk < ends.length ? ends[chunk - 1] + 1 : null;
  }
  return Number.isInteger(token) && token >= 0 && token < whole.meta.length ? token : null;
}

function go(row, token) {
  const hash = `#r=${row}${token === null ? "" : `&t=${token}`}`;
  if (location.hash === hash) return;
  history.replaceState(null, "", hash);
  const same = row === state.row && state.whole && token !== null;
  readHash();
  if (same) { state.token = token; choose(token); } else showDetail();
}

async function onHash() {
  if (!readHash()) return;
  await showDetail();
  byId("detail").scrollIntoView({ block: "start" });
}

// ---- events ----

function move(by) {
  const place = state.visible.findIndex((row) => row.row === state.row);
  const next = state.visible[Math.min(Math.max(place + by, 0), state.visible.length - 1)];
  if (next) go(next.row, null);
}

function moveToken(by) {
  if (!state.whole) return;
  const to = state.token === null ? 0 : state.token + by;
  go(state.row, Math.min(Math.max(to, 0), state.whole.meta.length - 1));
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

const tokenOf = (event) => (state.whole && event.target.dataset ? event.target.dataset.token : undefined);

function listen() {
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  for (const id of ["search", "outcome", "group", "finding", "shortest", "longest", "order"]) byId(id).addEventListener("input", showList);
  byId("layer").addEventListener("input", showDetail);
  byId("methods").addEventListener("change", (event) => {
    if (chosenMethods().length === 0) event.target.checked = true;
    if (event.target.checked) showMethod(event.target.value);
    showDetail();
  });
  byId("detail").addEventListener("click", (event) => { if (tokenOf(event) !== undefined) go(state.row, Number(tokenOf(event))); });
  byId("detail").addEventListener("mouseover", (event) => { if (tokenOf(event) !== undefined) showInspector(state.whole, Number(tokenOf(event))); });
  document.addEventListener("keydown", onKey);
  window.addEventListener("hashchange", onHash);
}

fillControls();
listen();
showList();
if (location.hash.startsWith("#r=")) onHash();
else if (state.visible.length) { state.row = state.visible[0].row; markCurrent(); showDetail(); }
else showDetail();
byId("browser").hidden = false;
byId("controls").hidden = false;
byId("unstarted").hidden = true;
