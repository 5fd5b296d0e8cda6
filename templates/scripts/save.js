// Saves a file from the page: dispatch a "save" event on the document with {name, format} and, for
// "json", a `value`; for "csv", its `lines` of cells, or a `value` that is a list of objects; for "svg",
// a `text`.
const TYPES = { csv: "text/csv", json: "application/json", svg: "image/svg+xml" };
const WRITERS = {
  // Without the mark at its beginning, Excel reads another encoding than UTF-8.
  csv: ({ value, lines = linesOf(value) }) => `\ufeff${lines.map((line) => `${line.map(cell).join(",")}\r\n`).join("")}`,
  json: ({ value }) => `${JSON.stringify(value, null, 1)}\n`,
  svg: ({ text }) => text,
};

// Objects of the same keys as lines; those of an empty list are none.
const linesOf = (records) => [Object.keys(records[0] ?? {}), ...records.map(Object.values)];

// A spreadsheet takes a text that begins with one of these signs for a formula, unless it is a number;
// after ' it is text.
function cell(value) {
  const plain = Array.isArray(value) ? value.join("; ") : String(value);
  const text = /^[=+\-@\t\r]/.test(plain) && Number.isNaN(Number(plain)) ? `'${plain}` : plain;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

document.addEventListener("save", ({ detail }) => {
  const { name, format } = detail;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([WRITERS[format](detail)], { type: TYPES[format] }));
  link.download = `${name}.${format}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // large files take a moment
});
