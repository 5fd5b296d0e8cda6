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

  for (const line of document.querySelectorAll(".save-flips")) {
    const number = Number(line.dataset.pair);
    const found = flipped(pairs[number]);
    line.hidden = found.length === 0;
    line.addEventListener("click", ({ target: { value: format } }) => {
      if (!format) return;
      const detail = { name: `flipped-rows-${number + 1}`, format, value: found };
      document.dispatchEvent(new CustomEvent("save", { detail }));
    });
  }
}
