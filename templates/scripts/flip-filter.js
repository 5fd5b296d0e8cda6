// The search field above the flipped rows of a comparison.
const flipFilter = document.getElementById("flip-filter");
if (flipFilter) {
  const cases = [...document.querySelectorAll(".case")];
  const counter = document.getElementById("flip-count");
  flipFilter.addEventListener("input", () => {
    const wanted = flipFilter.value.trim().toLowerCase();
    for (const one of cases) one.hidden = !one.textContent.toLowerCase().includes(wanted);
    for (const more of document.querySelectorAll(".more")) more.open = wanted !== "";
    const shown = cases.filter((one) => !one.hidden).length;
    counter.textContent = wanted === "" ? "" : `${shown} of ${cases.length}`;
  });
  flipFilter.closest(".tools").hidden = cases.length === 0;
}
