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
