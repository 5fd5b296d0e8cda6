// Saves the rows of the list that the filter leaves as a file, without any request.
const downloads = document.getElementById("row-downloads");
if (downloads) {
  const table = document.querySelector("table.rows");
  const names = JSON.parse(table.dataset.names);
  // of each row: 2, 2 and 3 digits in base 36, see view/case_list.py
  const thousandths = table.dataset.probabilities
    .match(/.{7}/g)
    .map((one) => [one.slice(0, 2), one.slice(2, 4), one.slice(4)].map((part) => parseInt(part, 36)));
  const rows = [...table.tBodies[0].rows];

  function record(row, at) {
    const [number, premise, hypothesis, gold, before, after, , tags, right] = [...row.cells].map(
      (cell) => cell.textContent
    );
    const [base, tuned, margin] = thousandths[at];
    return {
      row: Number(number),
      kind: names.kinds[row.className],
      premise,
      hypothesis,
      gold_label: names.labels[gold],
      base_answer: names.labels[before],
      tuned_answer: names.labels[after],
      base_gold_probability: base / 1000,
      tuned_gold_probability: tuned / 1000,
      margin: (margin - 1000) / 1000,
      tags: tags.trim().split(" ").filter(Boolean).map((code) => names.tags[code]),
      ...(right === undefined ? {} : { trainings_correct: Number(right) }),
    };
  }

  function save(format) {
    const value = rows.map(record).filter((_, at) => !rows[at].hidden);
    const detail = { name: downloads.dataset.name, format, value };
    document.dispatchEvent(new CustomEvent("save", { detail }));
  }

  downloads.hidden = false;
  for (const button of downloads.querySelectorAll("button"))
    button.addEventListener("click", () => save(button.value));
}
