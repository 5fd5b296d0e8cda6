// The list of runs: search and chosen columns, which the address remembers, and the order as well.
const allRuns = document.querySelector("table.all-runs");
if (allRuns) {
  const heads = [...allRuns.tHead.rows[0].cells];
  const names = heads.map((head) => head.textContent.trim());
  const rows = [...allRuns.tBodies[0].rows];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const search = document.getElementById("run-search");
  const count = document.getElementById("run-count");
  const boxes = [...document.querySelectorAll("#run-columns input")];
  const usual = boxes.map((box) => box.checked);

  const showRows = () => {
    const wanted = search.value.trim().toLowerCase();
    rows.forEach((row, index) => (row.hidden = !texts[index].includes(wanted)));
    const shown = rows.filter((row) => !row.hidden).length;
    count.textContent = shown === rows.length ? "" : `${shown} of ${rows.length}`;
  };
  const showColumns = () => {
    const chosen = boxes.filter((box) => box.checked).length;
    for (const box of boxes) {
      const column = names.indexOf(box.value);
      heads[column].hidden = !box.checked;
      for (const { cells } of rows)
        if (cells.length === heads.length) cells[column].hidden = !box.checked;
    }
    for (const cell of allRuns.querySelectorAll("td[colspan]")) cell.colSpan = Math.max(1, chosen);
  };

  // "#?search=night&column=gain&sort=gain&order=descending"
  const remember = () => {
    const view = new URLSearchParams();
    if (search.value) view.set("search", search.value);
    if (boxes.some((box, index) => box.checked !== usual[index]))
      for (const box of boxes) if (box.checked) view.append("column", box.value);
    const sorted = heads.findIndex((head) => head.ariaSort?.endsWith("ending"));
    if (sorted >= 0) {
      view.set("sort", names[sorted]);
      view.set("order", heads[sorted].ariaSort);
    }
    history.replaceState(null, "", `#?${view}`);
  };
  const recall = () => {
    if (!location.hash.startsWith("#?")) {
      const target = document.getElementById(location.hash.slice(1));
      if (target?.hidden) search.value = ""; // a link leads to a run that the search has hidden
      return showRows();
    }
    const view = new URLSearchParams(location.hash.slice(2));
    search.value = view.get("search") ?? "";
    const columns = view.getAll("column");
    boxes.forEach(
      (box, index) => (box.checked = columns.length ? columns.includes(box.value) : usual[index])
    );
    showColumns();
    showRows();
    const head = heads[names.indexOf(view.get("sort"))];
    const order = view.get("order");
    const button = /^(a|de)scending$/.test(order) && head?.querySelector("button");
    for (let tries = 0; button && head.ariaSort !== order && tries < 3; tries += 1) button.click();
  };

  search.addEventListener("input", () => {
    showRows();
    remember();
  });
  for (const box of boxes)
    box.addEventListener("change", () => {
      showColumns();
      remember();
    });
  allRuns.tHead.addEventListener("click", remember);
  addEventListener("hashchange", recall);
  search.closest(".run-tools").hidden = false;
  queueMicrotask(recall); // once the heads have their buttons
}
