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
