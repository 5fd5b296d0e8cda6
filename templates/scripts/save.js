// Saves a file from the page: dispatch a "save" event on the document with {name, format} and, for
// "csv", its `lines` of cells; for "json", a `value`; for "svg", a `text`.
const TYPES = { csv: "text/csv", json: "application/json", svg: "image/svg+xml" };
const WRITERS = {
  // Without the mark at its beginning, Excel reads another encoding than UTF-8.
  csv: ({ lines }) => `\ufeff${lines.map((line) => `${line.map(cell).join(",")}\r\n`).join("")}`,
  json: ({ value }) => `${JSON.stringify(value, null, 1)}\n`,
  svg: ({ text }) => text,
};

// A spreadsheet takes a text that begins with one of these signs for a formula, unless it is a number;
// after ' it is text.
function cell(value) {
  const plain = String(value);
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
