// What the page's data say: rows, layers, values per token. Nothing here touches the page.
const data = JSON.parse(document.getElementById("data").textContent);
const rows = data.rows;
const byRow = new Map(rows.map((row) => [row.row, row]));
const finalLayer = data.layers.find((layer) => layer.name === "advantage" && layer.kind === "stage") || null;
const own = (object, name) => (Object.prototype.hasOwnProperty.call(object, name) ? object[name] : null);
const explained = data.methods.filter((name) => finalLayer && own(finalLayer.scales, name));

// Three digits; what is smaller than a millionth is rounding noise here.
function shown(value) {
  if (value === null || value === undefined) return "–";
  if (value !== 0 && Math.abs(value) < 1e-6) return "0.00";
  return Number(value.toPrecision(3)).toString();
}

const counted = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;
const outcomeOf = (row) => (row.outcome === null ? "unknown" : row.outcome > 0 ? "right" : "wrong");
const textOf = (layer) => (layer === finalLayer ? "final advantage" : `${layer.kind}: ${layer.name}`);

// A row of the list with its texts and numbers; a promise, made once.
function wholeOf(row) {
  if (!row.whole) row.whole = unpacked(row.packed).then((found) => ({ ...found, meta: row }));
  return row.whole;
}

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
  const piece = values ? pieceOf(ends, token) : -1;
  return piece < 0 || piece >= values.length ? null : values[piece];
}

// What a layer shows of a token of a whole response under a method.
function layerValue(whole, method, layer, token) {
  if (layer.kind === "stream") {
    const stream = own(whole.streams, layer.name);
    return stream ? valueAt(stream.ends, stream.values, token) : null;
  }
  const credit = own(whole.methods, method);
  return credit ? valueAt(credit.ends, own(credit.stages, layer.name), token) : null;
}

// The value without colour, and how far from it the colour is full.
const scaleOf = (method, layer) => own(layer.scales, layer.kind === "stream" ? "" : method);

function paint(span, value, scale) {
  if (value === null || scale === null) return;
  const [middle, reach] = scale, size = Math.min(Math.abs(value - middle) / reach, 1) * 0.8;
  span.style.backgroundColor = `rgb(var(${value >= middle ? "--above" : "--below"}) / ${size.toFixed(2)})`;
}
