// Tables of the class "sortable": sorting, heads that stay in view, columns on the clipboard.
// "long" adds a filter, "savable" adds downloads.

// ---------------------------------------------------------------- figures of a cell
const SCALES = {
  ...{ d: ["s", 86_400], h: ["s", 3600], min: ["s", 60], s: ["s", 1] },
  ...{ MiB: ["bytes", 2 ** 20], GiB: ["bytes", 2 ** 30] },
  ...{ J: ["J", 1], Wh: ["Wh", 1], kWh: ["Wh", 1000], W: ["W", 1], "°C": ["°C", 1] },
  ...{ "%": ["%", 1], points: ["points", 1] },
};
const DIGITS = String.raw`\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?`;
const FIGURE = new RegExp(
  String.raw`^(p(?=\W)|at least|about|[A-Z]{3}(?= \d))?\s*=?\s*([+\-−]?)\s*([<>]?)\s*(${DIGITS})\s*(.*)$`
);
const FURTHER = new RegExp(String.raw`^(${DIGITS})\s*(h|min|s)(?!\w)\s*(.*)$`);
const INTERVAL = new RegExp(String.raw`([+\-−]?${DIGITS}) to ([+\-−]?${DIGITS})( %)?`);

const number = (text) => Number(text.replaceAll(",", "").replace("−", "-"));

// The text of a cell; what is in small type begins a line.
const plain = (cell) =>
  [...cell.childNodes]
    .map((part) => (part.nodeName === "SMALL" ? "\n" : "") + part.textContent)
    .join("")
    .replaceAll("\u00a0", " ")
    .trim();

// {value, unit, exact, rest} of a text such as "12.3 %", "+5.1", "< 0.001", "2 min 5 s"; or null.
// The value of a bound is a little below or above it. Times are in seconds, sizes in bytes.
function figure(text) {
  const found = FIGURE.exec(text.split("\n")[0]);
  if (!found) return null;
  const [, word, sign, bound, digits, after] = found;
  const symbol = /^[^\s;,(]*/.exec(after)[0];
  const [unit, scale] = Object.hasOwn(SCALES, symbol) ? SCALES[symbol] : ["", 1];
  let value = number(digits) * scale;
  let rest = unit ? after.slice(symbol.length).trim() : after;
  for (let more; unit === "s" && (more = FURTHER.exec(rest)); rest = more[3])
    value += number(more[1]) * SCALES[more[2]][1];
  if (bound) value *= bound === "<" ? 1 - 1e-6 : 1 + 1e-6;
  const exact = !bound && !/^a/.test(word ?? "");
  return { value: sign && sign !== "+" ? -value : value, unit, exact, rest };
}

// Both bounds of the interval in a text; or null.
function bounds(text) {
  const found = INTERVAL.exec(text);
  return found && { low: number(found[1]), high: number(found[2]), unit: found[3] ? "%" : "" };
}

// Whether a column is sorted by value: its head says so, or each text in it is a mere number.
function isNumeric(head, texts) {
  if (head.classList.contains("number")) return true;
  const known = texts.filter((text) => text !== "");
  return known.length > 0 && known.every((text) => figure(text)?.rest === "");
}

// ---------------------------------------------------------------- sorting
const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
const original = new WeakMap(); // body of a table -> its rows as they came

// The order of two keys: missing ones last, figures of one unit together.
function compare(one, other, direction) {
  if (one === null || other === null) return (one === null) - (other === null);
  if (typeof one === "string") return direction * collator.compare(one, other);
  return one.place - other.place || direction * (one.value - other.value);
}

function keysOf(head, rows) {
  const cells = rows.map((row) => row.cells[head.cellIndex]);
  const texts = cells.map((cell) => (cell ? plain(cell) : ""));
  if (!isNumeric(head, texts)) return texts.map((text) => text || null);
  const units = [];
  return texts.map((text) => {
    const found = figure(text);
    if (!found) return null;
    if (!units.includes(found.unit)) units.push(found.unit);
    return { value: found.value, place: units.indexOf(found.unit) };
  });
}

function sort(table, head) {
  const [body] = table.tBodies;
  if (!original.has(body)) original.set(body, [...body.rows]);
  const next = { none: "ascending", ascending: "descending", descending: "none" }[head.ariaSort];
  for (const other of table.tHead.rows[0].cells) if (other.ariaSort) other.ariaSort = "none";
  head.ariaSort = next;
  if (next === "none") return body.append(...original.get(body));
  const groups = []; // indented rows stay below theirs
  for (const row of original.get(body))
    if (row.classList.contains("indented") && groups.length) groups.at(-1).push(row);
    else groups.push([row]);
  const keys = keysOf(
    head,
    groups.map(([row]) => row)
  );
  const direction = next === "ascending" ? 1 : -1;
  const order = groups.map((_, index) => index);
  order.sort((one, other) => compare(keys[one], keys[other], direction));
  body.append(...order.flatMap((index) => groups[index]));
}

function addSorting(table) {
  for (const head of table.tHead.rows[0].cells) {
    if (head.tagName !== "TH") continue;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(table, head));
    head.append(button);
    head.ariaSort = "none";
  }
}

// ---------------------------------------------------------------- width
// A table that fits needs no frame that scrolls, so its head can stay at the top of the window.
const widths = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const fits = target.firstElementChild.offsetWidth <= target.clientWidth;
    target.classList.toggle("fits", fits);
    if (fits) target.removeAttribute("tabindex");
    else target.tabIndex = 0;
  }
});

// On a phone, the columns that matter most come right after the names of the rows.
const phone = matchMedia("(max-width: 40rem)");

function orderColumns(table) {
  const heads = [...table.tHead.rows[0].cells];
  const places = heads.map((head, place) => Number(head.dataset.place ?? place));
  heads.forEach((head, index) => (head.dataset.place = places[index]));
  const rank = (index) =>
    phone.matches && places[index] > 0 ? ("first" in heads[index].dataset ? 1 : 2) : 0;
  const order = heads.map((_, index) => index);
  order.sort((one, other) => rank(one) - rank(other) || places[one] - places[other]);
  if (order.every((from, to) => from === to)) return;
  for (const row of table.rows) {
    const cells = [...row.cells];
    row.append(...order.map((index) => cells[index]));
  }
}

// ---------------------------------------------------------------- filter
function addFilter(table) {
  const line = document.createElement("p");
  line.className = "sift";
  line.innerHTML = `<label>Show only rows with <input type="search"></label> <output></output>`;
  const [input, output] = line.querySelectorAll("input, output");
  const rows = [...table.tBodies[0].rows];
  input.addEventListener("input", () => {
    const wanted = input.value.trim().toLowerCase();
    for (const row of rows)
      row.hidden = ![...row.cells].some((cell) => plain(cell).toLowerCase().includes(wanted));
    const shown = rows.filter((row) => !row.hidden).length;
    output.textContent = shown === rows.length ? "" : `${shown} of ${rows.length}`;
  });
  table.parentElement.before(line);
}

// ---------------------------------------------------------------- copying
// A text for one cell of a spreadsheet: "12.3 %\n9.8 to 15.0 %" has its interval in parentheses.
function oneLine(text) {
  const [first, ...others] = text.split("\n").map((line) => line.trim());
  const note = others.filter(Boolean).join("; ");
  return (note ? `${first} (${note})` : first).replace(/\s+/g, " ").replace(/^−(?=[<>\d])/, "-");
}

document.addEventListener("copy", (event) => {
  const selection = document.getSelection();
  if (selection.rangeCount !== 1) return;
  const { commonAncestorContainer: within } = selection.getRangeAt(0);
  const table = (within.nodeType === 1 ? within : within.parentElement).closest("table.sortable");
  if (!table) return;
  const chosen = [...table.rows]
    .filter((row) => !row.hidden)
    .map((row) => [...row.cells].filter((cell) => !cell.hidden && selection.containsNode(cell, true)))
    .filter((cells) => cells.length > 0);
  if (chosen.flat().length < 2) return; // a part of one cell is mere text
  const lines = chosen.map((cells) => cells.map((cell) => oneLine(plain(cell))));
  const copied = document.createElement("table");
  for (const line of lines)
    for (const text of [copied.insertRow()].flatMap((row) => line.map(() => row.insertCell())))
      text.textContent = line[text.cellIndex];
  event.clipboardData.setData("text/plain", lines.map((line) => line.join("\t")).join("\n"));
  event.clipboardData.setData("text/html", copied.outerHTML);
  event.preventDefault();
});

// ---------------------------------------------------------------- downloads
// The columns of a table with their texts and figures, in the order of the page.
function columnsOf(table) {
  const heads = [...table.tHead.rows[0].cells];
  const names = heads.map(plain);
  const rows = [...table.tBodies[0].rows];
  const columns = heads.map((head, index) => {
    const texts = rows.map((row) => textWithoutBadge(row.cells[index]));
    const numeric = isNumeric(head, texts);
    return {
      name: ownName(names, index),
      cells: texts.map((text) => ({ text: oneLine(text), ...(numeric ? figuresOf(text) : {}) })),
      numeric,
    };
  });
  const marks = rows.map((row) => ({ text: row.querySelector(".badge")?.textContent ?? "" }));
  if (marks.some(({ text }) => text)) columns.push({ name: "mark", cells: marks, numeric: false });
  return columns;
}

// The name of a column; that of the one before it stands before a name that comes again.
function ownName(names, index) {
  const name = names[index] || "row";
  const places = names.flatMap((one, place) => (one === names[index] ? [place] : []));
  if (places.length === 1 || index === 0) return name;
  const whole = `${names[index - 1]}: ${name}`;
  const nth = places.filter((one) => one <= index && names[one - 1] === names[index - 1]).length;
  return nth > 1 ? `${whole} (${nth})` : whole;
}

function textWithoutBadge(cell) {
  const copy = cell.cloneNode(true);
  copy.querySelector(".badge")?.remove();
  return plain(copy);
}

// Of a text: its value, or null if it is unknown or a bound; the bounds of its interval where it has one; their unit.
function figuresOf(text) {
  const interval = bounds(text);
  const found = INTERVAL.exec(text)?.index === 0 ? null : figure(text);
  const unit = found?.unit || interval?.unit;
  return {
    value: found?.exact ? found.value : null,
    ...(interval && { low: interval.low, high: interval.high }),
    ...(unit && { unit }),
  };
}

function asValue(table, columns) {
  const rows = columns[0].cells.map((_, index) =>
    Object.fromEntries(
      columns.map(({ name, cells, numeric }) => [name, numeric ? cells[index] : cells[index].text])
    )
  );
  return { table: plain(table.caption), rows };
}

// Texts as on the page; where they hold more than a number, the figures in columns of their own.
function asLines(columns) {
  const fields = [];
  for (const { name, cells, numeric } of columns) {
    const isMere = cells.every(({ text, value }) => value == null || !Number.isNaN(number(text)));
    const write = ({ text, value }) => (value == null || !isMere ? text : number(text));
    fields.push([name, ...cells.map(numeric ? write : ({ text }) => text)]);
    if (!numeric || (isMere && !cells.some(({ low }) => low != null))) continue;
    for (const part of ["value", "low", "high"]) {
      const of = cells.filter((cell) => cell[part] != null);
      const units = new Set(of.map(({ unit }) => unit));
      const unit = units.size === 1 ? [...units][0] : "";
      const title = `${name}: ${part}${unit ? ` (${unit})` : ""}`;
      if (of.length) fields.push([title, ...cells.map((cell) => cell[part] ?? "")]);
    }
  }
  return fields[0].map((_, index) => fields.map((field) => field[index]));
}

function addSaving(table) {
  const caption = plain(table.caption);
  const name = caption.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 60);
  const line = document.createElement("p");
  line.className = "save";
  line.append("Save as ");
  for (const format of ["csv", "json"]) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = format.toUpperCase();
    button.ariaLabel = `Save as ${button.textContent}: ${caption}`;
    button.addEventListener("click", () => {
      const columns = columnsOf(table);
      const contents = { lines: asLines(columns), value: asValue(table, columns) };
      const detail = { name: name.replace(/^-|-$/g, ""), format, ...contents };
      document.dispatchEvent(new CustomEvent("save", { detail }));
    });
    line.append(button, " ");
  }
  table.parentElement.after(line);
}

// ---------------------------------------------------------------- all of them
const tables = [...document.querySelectorAll("table.sortable")];
const withFirst = tables.filter((table) => table.tHead.querySelector("[data-first]"));
const orderAll = () => withFirst.forEach(orderColumns);
orderAll();
phone.addEventListener("change", orderAll);
for (const table of tables) {
  if (table.tBodies[0].rows.length > 1) addSorting(table);
  if (table.classList.contains("long")) addFilter(table);
  if (table.classList.contains("savable")) addSaving(table);
  if (table.parentElement.classList.contains("scroll")) widths.observe(table.parentElement);
}
