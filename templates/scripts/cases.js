// The search field above the cases of a comparison: the rows that two runs answer differently.
const filter = document.getElementById("case-filter");
if (filter) {
  const flips = [...document.querySelectorAll(".case")];
  const counter = document.getElementById("case-count");

  function showMatching() {
    const wanted = filter.value.trim().toLowerCase();
    let shown = 0;
    for (const one of flips) {
      one.hidden = !one.textContent.toLowerCase().includes(wanted);
      shown += one.hidden ? 0 : 1;
    }
    for (const more of document.querySelectorAll(".more")) more.open = wanted !== "";
    counter.textContent = wanted === "" ? "" : `${shown} of ${flips.length}`;
  }

  filter.closest(".tools").hidden = false;
  filter.addEventListener("input", showMatching);
}
