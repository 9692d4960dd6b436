// One response: its tokens under each method, and every number of a selected token.
// Texts of the data enter the page by textContent alone.
const MOST_SIDE_BY_SIDE = 3, TOKENS_WITHOUT_TEXT = 2000;
const byId = (id) => document.getElementById(id);

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined && text !== null) made.textContent = text;
  if (className) made.className = className;
  return made;
}

// Scrolls a box, and not the page, so that something in it can be seen.
function keepInView(box, inner) {
  const outside = box.getBoundingClientRect(), place = inner.getBoundingClientRect();
  if (place.top < outside.top) box.scrollTop -= outside.top - place.top;
  if (place.bottom > outside.bottom) box.scrollTop += place.bottom - outside.bottom;
}

function folded(title, text, open) {
  const made = element("details"), body = element("div", text, "plain");
  made.open = Boolean(open);
  body.tabIndex = 0;
  made.append(element("summary", title), body);
  return made;
}

function facts(row) {
  const parts = [row.outcome === null ? "outcome not known" : `outcome ${shown(row.outcome)}`, counted(row.length, "trained token")];
  if (row.steps !== null) parts.push(counted(row.steps, "step"));
  if (!row.format_ok) parts.push("format not kept");
  return element("p", parts.join(", ") + ".", "facts");
}

// All that stands above the tokens, and the tokens: once per method, or once for a stream.
function responseParts(whole, layer, methods) {
  const row = whole.meta, parts = [facts(row)];
  const named = data.findings.filter((finding) => finding.rows.includes(row.row)).map((finding) => finding.title);
  if (named.length) parts.push(folded(`Named by ${counted(named.length, "finding")}`, named.join("\n")));
  if (whole.prompt) parts.push(folded("The prompt", whole.prompt));
  if (whole.tokens === null && whole.text) parts.push(folded("The text", whole.text, true));
  const panels = element("div", null, "panels");
  for (const method of layer === null || layer.kind === "stream" ? [null] : methods) panels.append(panel(whole, method, layer));
  return [...parts, panels];
}

function panel(whole, method, layer) {
  const made = element("section", null, "panel"), row = whole.meta;
  const title = method === null ? (layer ? textOf(layer) : "tokens")
    : `${method}: mean advantage ${shown(row.means[method])}, place ${shown(row.places[method])} in its group`;
  made.append(element("h4", title));
  const credit = method === null ? null : own(whole.methods, method), scale = layer ? scaleOf(method, layer) : null;
  if (credit && !Object.hasOwn(credit.stages, layer.name)) made.append(element("p", "This method has no such stage here.", "soft"));
  else if (scale) made.append(scaleBar(scale));
  made.append(tokenBox(whole, method, layer, scale));
  return made;
}

function scaleBar([middle, reach]) {
  const made = element("div", null, "scale");
  made.append(element("span", shown(middle - reach)), element("span", null, "bar"), element("span", shown(middle + reach)));
  if (middle !== 0) made.append(element("span", `no colour: ${shown(middle)}`));
  return made;
}

function tokenBox(whole, method, layer, scale) {
  const box = element("div", null, "tokens"), row = whole.meta;
  box.tabIndex = 0;
  box.dataset.method = method === null ? "" : method;
  box.setAttribute("role", "group");
  box.setAttribute("aria-label", `Tokens${method === null ? "" : " under " + method}; arrow keys move between them`);
  const ends = new Set(whole.steps || []);
  const texts = whole.tokens || Array.from({ length: Math.min(row.length, TOKENS_WITHOUT_TEXT) }, () => "▪ ");
  let token = 0;
  texts.forEach((text, place) => {
    const span = element("span", text.replaceAll("\n", "↵\n").replaceAll("\t", "⇥\t"));
    if (whole.mask && whole.mask[place] === "0") span.className = "untrained";
    else {
      span.dataset.token = token;
      if (ends.has(token)) span.className = "end";
      if (layer) paint(span, layerValue(whole, method, layer, token), scale);
      token += 1;
    }
    box.append(span);
  });
  if (token < row.length) box.append(element("span", ` … ${row.length - token} more tokens are not shown`, "untrained"));
  return box;
}

// ---- the selected token ----

// The first and the last token of the piece of `ends` that holds a token.
function spanOf(ends, token) {
  const piece = ends ? pieceOf(ends, token) : -1;
  return piece < 0 ? [token, token] : [piece ? ends[piece - 1] + 1 : 0, ends[piece]];
}

// Marks a token, and the chunk of the box's method (or the step) that it is in.
function markChunk(box, whole, token) {
  for (const span of box.querySelectorAll(".chunk, .chosen")) span.classList.remove("chunk", "chosen");
  const credit = own(whole.methods, box.dataset.method);
  const [first, last] = spanOf(credit ? credit.ends : whole.steps, token);
  for (const span of box.querySelectorAll("[data-token]")) {
    const at = Number(span.dataset.token);
    if (at >= first && at <= last) span.classList.add("chunk");
    if (at === token) { span.classList.add("chosen"); keepInView(box, span); }
  }
}

function showInspector(whole, token) {
  const box = byId("inspector"), close = element("button", "Close");
  close.type = "button";
  close.addEventListener("click", hideInspector);
  box.replaceChildren(close, element("p", placeOf(whole, token)));
  for (const [name, stream] of Object.entries(whole.streams)) {
    box.append(element("p", `stream ${name}: ${shown(valueAt(stream.ends, stream.values, token))}`));
  }
  const methods = chosenMethods().filter((name) => own(whole.methods, name));
  if (methods.length) box.append(stageTable(whole, methods, token));
  box.hidden = false;
}

function hideInspector() { byId("inspector").hidden = true; }

function placeOf(whole, token) {
  const span = byId("detail").querySelector(`[data-token="${token}"]`);
  const text = span && whole.tokens ? `“${span.textContent.trim() || "space"}”, ` : "";
  const step = whole.steps ? pieceOf(whole.steps, token) : -1;
  return `${text}token ${token + 1} of ${whole.meta.length}${step < 0 ? "" : `, step ${step + 1} of ${whole.meta.steps}`}`;
}

function stageTable(whole, methods, token) {
  const names = [...new Set(methods.flatMap((method) => Object.keys(whole.methods[method].stages)))].filter((name) => name !== "advantage");
  const table = element("table");
  const line = (tag, name, cells) => {
    const made = element("tr"), first = element("th", name);
    first.scope = tag === "th" ? "col" : "row";
    made.append(first, ...cells);
    table.append(made);
  };
  line("th", "stage", methods.map((method) => { const cell = element("th", method, "n"); cell.scope = "col"; return cell; }));
  line("td", "chunk", methods.map((method) => chunkCell(whole, method, token)));
  for (const name of [...names, "advantage"]) {
    line("td", name, methods.map((method) => element("td", shown(layerValue(whole, method, { kind: "stage", name }, token)), "n")));
  }
  return table;
}

// The number of the token's chunk, as a link to it.
function chunkCell(whole, method, token) {
  const cell = element("td", null, "n"), piece = pieceOf(whole.methods[method].ends, token);
  if (piece < 0) return cell;
  const link = element("a", String(piece + 1));
  link.href = `#r=${whole.meta.row}&m=${encodeURIComponent(method)}&c=${piece}`;
  cell.append(link);
  return cell;
}
