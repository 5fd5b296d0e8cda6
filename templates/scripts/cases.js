// The search field above the failure cases.
const cases = [...document.querySelectorAll(".case")];
const filter = document.getElementById("case-filter");
const counter = document.getElementById("case-count");

function showMatching() {
  const wanted = filter.value.trim().toLowerCase();
  let shown = 0;
  for (const one of cases) {
    one.hidden = wanted !== "" && !one.textContent.toLowerCase().includes(wanted);
    shown += one.hidden ? 0 : 1;
  }
  for (const more of document.querySelectorAll(".more")) more.open = wanted !== "";
  counter.textContent = wanted === "" ? "" : `${shown} of ${cases.length}`;
}

if (filter && cases.length > 0) {
  filter.closest(".tools").hidden = false;
  filter.addEventListener("input", showMatching);
}
