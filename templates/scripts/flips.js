// Rows that only one of two runs has right, saved as CSV or JSON.
const flipData = document.getElementById("flips");
if (flipData) {
  const { rows, pairs } = JSON.parse(flipData.textContent);

  const flipped = ({ reference, other, flips }) =>
    flips.map(([place, referenceAnswer, otherAnswer, gap]) => {
      const [row, premise, hypothesis, gold] = rows[place];
      return {
        ...{ row, premise, hypothesis, gold_label: gold },
        only_right: otherAnswer === gold ? other : reference,
        ...{ reference, reference_answer: referenceAnswer, other, other_answer: otherAnswer },
        gold_probability_difference: gap,
      };
    });

  // A text that no spreadsheet takes for a formula.
  const field = (value) => {
    if (typeof value === "number") return String(value);
    const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const asCsv = (found) => {
    const lines = [Object.keys(found[0]), ...found.map(Object.values)];
    // without the mark at its beginning, Excel reads another encoding
    return `\ufeff${lines.map((line) => line.map(field).join(",")).join("\r\n")}\r\n`;
  };

  for (const line of document.querySelectorAll(".save-flips")) {
    const number = Number(line.dataset.pair);
    const found = flipped(pairs[number]);
    line.hidden = found.length === 0;
    line.addEventListener("click", ({ target: { value: ending } }) => {
      if (!ending) return;
      const isCsv = ending === "csv";
      const detail = {
        name: `flipped-rows-${number + 1}.${ending}`,
        type: isCsv ? "text/csv" : "application/json",
        text: isCsv ? asCsv(found) : `${JSON.stringify(found, null, 1)}\n`,
      };
      document.dispatchEvent(new CustomEvent("save", { detail }));
    });
  }
}
