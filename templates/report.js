// Comforts only: the page says everything with scripts off.
"use strict";

(() => {
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

  for (const button of document.querySelectorAll(".copy")) {
    button.hidden = !navigator.clipboard;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(button.nextElementSibling.textContent);
      button.textContent = "Copied";
    });
  }

  // Closed details are part of the printed report too.
  const closed = () => document.querySelectorAll("details:not([open])");
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...closed()];
    for (const one of opened) one.open = true;
  });
  addEventListener("afterprint", () => {
    for (const one of opened) one.open = false;
  });

  // The contents show where the reader is.
  const links = new Map(
    [...document.querySelectorAll(".contents a")].map((link) => [link.hash.slice(1), link])
  );
  const observer = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        for (const link of links.values()) link.removeAttribute("aria-current");
        links.get(entry.target.id).setAttribute("aria-current", "true");
      }
    },
    { rootMargin: "-10% 0px -80% 0px" }
  );
  for (const id of links.keys()) observer.observe(document.getElementById(id));
})();
