// Saves the rows of the list that the filter leaves as a file, without any request.
const downloads = document.getElementById("row-downloads");
if (downloads) {
  const table = document.querySelector("table.rows");
  const names = JSON.parse(table.dataset.names);
  const thousandths = table.dataset.probabilities.split(" ").map(Number);
  const rows = [...table.tBodies[0].rows];

  function record(row, at) {
    const [number, premise, hypothesis, gold, before, after, , tags, right] = [...row.cells].map(
      (cell) => cell.textContent
    );
    const [base, tuned, margin] = thousandths.slice(3 * at, 3 * at + 3).map((one) => one / 1000);
    return {
      row: Number(number),
      kind: names.kinds[row.className],
      premise,
      hypothesis,
      gold_label: names.labels[gold],
      base_answer: names.labels[before],
      tuned_answer: names.labels[after],
      base_gold_probability: base,
      tuned_gold_probability: tuned,
      margin,
      tags: tags.trim().split(" ").filter(Boolean).map((code) => names.tags[code]),
      ...(right === undefined ? {} : { trainings_correct: Number(right) }),
    };
  }

  // A spreadsheet takes a text that begins with one of these signs for a formula; after ' it is text.
  const asText = (text) => (/^[=+\-@\t\r]/.test(text) ? `'${text}` : text);
  const cell = (value) => {
    if (typeof value === "number") return String(value);
    const text = asText(Array.isArray(value) ? value.join("; ") : value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const FORMATS = {
    // The first character tells Excel that the file is in UTF-8.
    csv: (records) =>
      "\ufeff" +
      [Object.keys(records[0] ?? {}), ...records.map(Object.values)]
        .map((line) => `${line.map(cell).join(",")}\r\n`)
        .join(""),
    json: (records) => `${JSON.stringify(records, null, 1)}\n`,
  };
  const TYPES = { csv: "text/csv", json: "application/json" };

  function save(format) {
    const records = rows.map(record).filter((_, at) => !rows[at].hidden);
    const name = `${downloads.dataset.name}.${format}`;
    const detail = { name, type: TYPES[format], text: FORMATS[format](records) };
    document.dispatchEvent(new CustomEvent("save", { detail }));
  }

  downloads.hidden = false;
  for (const button of downloads.querySelectorAll("button"))
    button.addEventListener("click", () => save(button.value));
}
