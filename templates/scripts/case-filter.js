// One filter for the failure cases and the list of all rows. Links in the confusion matrices and
// the tables of slices set it too. It is part of the address, as in #cases?gold=ent&after=neu, so
// that it can be sent to others, and the browser's Back button undoes it.
const tools = document.getElementById("case-tools");
if (tools) {
  const MARK = "#cases?";
  const controls = [...tools.querySelectorAll("select, input")];
  const nameOf = (control) => control.id.slice("case-".length);
  const lower = (texts) => texts.join("\n").toLowerCase();
  const cases = [...document.querySelectorAll(".case[data-row]")].map((element) => {
    const { row, tag, ...marks } = element.dataset;
    const texts = [...element.querySelectorAll(".row dd[dir]")].map((part) => part.textContent);
    return { element, ...marks, row: Number(row), tag: tag.split(" "), text: lower(texts) };
  });
  const rows = [...document.querySelectorAll("table.rows tbody tr")].map((element) => {
    const [row, premise, hypothesis, gold, before, after, , tag, right] = [...element.cells].map(
      (cell) => cell.textContent.trim()
    );
    const marks = { kind: element.className, gold, before, after, right };
    const text = lower([premise, hypothesis]);
    return { element, ...marks, row: Number(row), tag: tag.split(" "), text };
  });
  let slice = null; // the link that set it
  const sliceOf = (link) => new URLSearchParams(link.dataset.cases).get("slice");

  // Row numbers are written as the first one and the steps to the others, in base 36; a step of
  // several digits stands between dots.
  function rowsOf(link) {
    let number = 0;
    const steps = link.dataset.rows.matchAll(/\.(\w+)\.|\w/g);
    return new Set(Array.from(steps, ([one, long]) => (number += parseInt(long ?? one, 36))));
  }

  const passes = (one, wanted, numbers) =>
    (!numbers || numbers.has(one.row)) &&
    wanted.every(([name, value]) =>
      name === "tag" || name === "text" ? one[name].includes(value) : one[name] === value
    );

  function inWords(control) {
    const value = control.selectedOptions
      ? control.selectedOptions[0].text.replace(/ \([\d,]+\)$/, "")
      : `“${control.value.trim()}”`;
    return `${control.labels[0].firstChild.textContent.trim()}: ${value}`;
  }

  function apply() {
    const set = controls.filter((control) => control.value.trim() !== "");
    const wanted = set.map((control) =>
      control.type === "search"
        ? ["text", control.value.trim().toLowerCase()]
        : [nameOf(control), control.value]
    );
    const numbers = slice && rowsOf(slice);
    const [shownCases, shownRows] = [cases, rows].map((all) => {
      for (const one of all) one.element.hidden = !passes(one, wanted, numbers);
      return all.filter((one) => !one.element.hidden).length;
    });
    const ofRows = `${shownRows} of ${rows.length} rows`;
    const isSet = set.length > 0 || slice !== null;
    for (const more of document.querySelectorAll("#cases .more")) more.open = isSet;
    for (const none of document.querySelectorAll("#cases .none")) {
      const own = [...none.parentElement.querySelectorAll(".case")];
      none.hidden = own.length === 0 || own.some((one) => !one.hidden);
    }
    const words = [...(slice ? [sliceOf(slice)] : []), ...set.map(inWords)].join("; ");
    document.querySelector(".filtered").hidden = !isSet;
    document.getElementById("case-count").textContent = isSet
      ? `Only ${words}. ${ofRows} in the list, ${shownCases} of ${cases.length} cases in detail.`
      : "";
    document.getElementById("row-count").textContent = isSet ? `(${ofRows})` : "";
    document.getElementById("row-choice").textContent = isSet
      ? `the ${shownRows} rows that pass the filter`
      : "these rows";
  }

  // Changed controls make no entry of their own for the Back button.
  function keepInAddress() {
    const query = new URLSearchParams();
    if (slice) query.set("slice", sliceOf(slice));
    for (const control of controls)
      if (control.value.trim()) query.set(nameOf(control), control.value.trim());
    location.replace(String(query) ? MARK + query : "#cases");
  }

  function clear() {
    slice = null;
    for (const control of controls) control.value = "";
    apply();
  }

  function followAddress() {
    if (location.hash.startsWith(MARK)) {
      const query = new URLSearchParams(location.hash.slice(MARK.length));
      const links = [...document.querySelectorAll("a[data-rows]")];
      slice = links.find((link) => sliceOf(link) === query.get("slice")) ?? null;
      for (const control of controls) control.value = query.get(nameOf(control)) ?? "";
      apply();
      return;
    }
    // a link to a case that the filter hides
    const target = document.getElementById(location.hash.slice(1));
    if (target?.closest(":is(.case, .rows tr)[hidden]")) clear();
  }

  function reveal() {
    document.querySelector(".list").open = true;
    tools.scrollIntoView({ behavior: "instant" }); // the way there may be long, and folds open
  }

  tools.hidden = false;
  for (const control of controls) {
    control.addEventListener("input", apply);
    control.addEventListener("change", keepInAddress);
  }
  document.getElementById("case-clear").addEventListener("click", () => {
    clear();
    keepInAddress();
    controls[0].focus(); // the button has gone
  });
  for (const link of document.querySelectorAll("a[data-cases]")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      location.hash = MARK + link.dataset.cases;
      followAddress();
      reveal();
    });
  }
  addEventListener("hashchange", followAddress);
  followAddress();
  if (location.hash.startsWith(MARK)) reveal();
}
