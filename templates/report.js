// Conveniences only: the page is complete with scripts off.
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

  // A link to a row or a case opens the details that contain it.
  const openTarget = () => {
    const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
    if (!target) return;
    for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    target.scrollIntoView();
  };
  addEventListener("hashchange", openTarget);
  openTarget();

  // Light or dark theme, overriding the system setting.
  const theme = document.querySelector(".theme");
  if (theme) {
    const themes = ["system", "light", "dark"];
    theme.hidden = false;
    theme.addEventListener("click", () => {
      const current = document.documentElement.dataset.theme ?? "system";
      const next = themes[(themes.indexOf(current) + 1) % themes.length];
      if (next === "system") delete document.documentElement.dataset.theme;
      else document.documentElement.dataset.theme = next;
      theme.textContent = `Theme: ${next}`;
    });
  }

  for (const button of document.querySelectorAll(".copy")) {
    button.hidden = !navigator.clipboard;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(button.nextElementSibling.textContent);
      button.textContent = "Copied";
    });
  }

  // Closed details are part of the printed report too.
  const closed = () => document.querySelectorAll("details:not([open], .list)");
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...closed()];
    for (const one of opened) one.open = true;
  });
  addEventListener("afterprint", () => {
    for (const one of opened) one.open = false;
  });

  // Highlight the current section in the contents.
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
