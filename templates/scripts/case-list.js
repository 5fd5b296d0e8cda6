// The list of all cases: a row is shown if it passes every filter that is set.
const list = document.querySelector("table.rows");
if (list) {
  const rows = [...list.tBodies[0].rows].map((row) => {
    const [, premise, hypothesis, gold, before, after, , tags, right] = [...row.cells].map(
      (cell) => cell.textContent.trim()
    );
    return {
      row,
      kind: row.className,
      mistake: `${gold}>${after === gold ? before : after}`,
      tags: tags.split(" "),
      right,
      text: `${premise}\n${hypothesis}`.toLowerCase(),
    };
  });
  const [kind, mistake, tag, text, count, trainings] = [
    ...["kind", "mistake", "tag", "text", "count", "trainings"],
  ].map((name) => document.getElementById(`row-${name}`));
  const number = () => trainings?.value ?? ""; // absent where there is one training
  const filterRows = () => {
    const wanted = text.value.trim().toLowerCase();
    let shown = 0;
    for (const one of rows) {
      const passes =
        (kind.value === "" || one.kind === kind.value) &&
        (mistake.value === "" || one.mistake === mistake.value) &&
        (tag.value === "" || one.tags.includes(tag.value)) &&
        (number() === "" || one.right === number()) &&
        one.text.includes(wanted);
      one.row.hidden = !passes;
      shown += passes ? 1 : 0;
    }
    count.textContent = shown === rows.length ? "" : `${shown} of ${rows.length}`;
  };
  text.closest(".tools").hidden = false;
  for (const control of [kind, mistake, tag, text, trainings])
    control?.addEventListener("input", filterRows);
}
