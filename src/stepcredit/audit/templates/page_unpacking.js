// Reads what `packed_columns.py` writes: one response's texts and columns, deflated, in base64.
const canUnpack = typeof DecompressionStream === "function" && typeof Object.hasOwn === "function";

async function inflated(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// The integers of a column, from their differences, which begin with the last one.
function codesOf([count, , order], bytes, start) {
  const codes = new Int32Array(count);
  let one = 0, two = 0;
  for (let i = 0; i < count; i++) {
    const folded = bytes[start + i] | (bytes[start + count + i] << 8);
    const change = folded & 1 ? -(folded + 1) / 2 : folded / 2;
    const code = change + (order === 0 ? 0 : order === 1 ? one : 2 * one - two);
    codes[count - 1 - i] = code;
    [one, two] = [code, one];
  }
  return codes;
}

// A response with its columns in place of their numbers.
async function unpacked(text) {
  const bytes = await inflated(text);
  const size = new DataView(bytes.buffer).getUint32(0, true);
  const row = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + size)));
  const values = [];
  let start = 4 + size;
  for (const described of row.columns) {
    const [count, exponent] = described, scale = 10 ** Math.abs(exponent);
    values.push(Array.from(codesOf(described, bytes, start), (code) => (exponent < 0 ? code / scale : code * scale)));
    start += 2 * count;
  }
  const column = (given) => (Array.isArray(given) ? values[given[0]] : given);
  row.steps = column(row.steps);
  for (const stream of Object.values(row.streams)) {
    stream.ends = column(stream.ends);
    stream.values = column(stream.values);
  }
  for (const credit of Object.values(row.methods)) {
    credit.ends = column(credit.ends);
    for (const name of Object.keys(credit.stages)) credit.stages[name] = column(credit.stages[name]);
  }
  return row;
}
