// Charts: the value of a point on hover, touch and with the arrow keys, and the chart as a file.
const SVG = "http://www.w3.org/2000/svg";
const REACH = 40; // pixels between the pointer and a point whose value is shown

function showValues(chart, tip) {
  const points = [...chart.querySelectorAll(".points circle")];
  if (!points.length) return;
  for (const point of points) {
    const title = point.querySelector("title"); // the browser would show it beside the tip
    point.dataset.text = title.textContent;
    title.remove();
  }
  const ring = document.createElementNS(SVG, "circle");
  let at = -1;

  const show = (index) => {
    at = index;
    ring.remove();
    tip.textContent = index < 0 ? "" : points[index].dataset.text;
    if (index < 0) return;
    for (const name of ["cx", "cy"]) ring.setAttribute(name, points[index].getAttribute(name));
    ring.setAttribute("class", "ring");
    ring.setAttribute("r", 7);
    chart.append(ring);
    const frame = chart.parentElement.getBoundingClientRect();
    const box = points[index].getBoundingClientRect();
    const half = tip.offsetWidth / 2;
    const middle = box.left + box.width / 2 - frame.left;
    tip.style.left = `${Math.max(half, Math.min(frame.width - half, middle))}px`;
    tip.style.top = `${box.top + box.height / 2 - frame.top}px`;
  };

  const nearest = ({ clientX, clientY }) => {
    const far = points.map((point) => {
      const box = point.getBoundingClientRect();
      const across = box.left + box.width / 2 - clientX;
      return Math.hypot(across, box.top + box.height / 2 - clientY);
    });
    const least = Math.min(...far);
    return least <= REACH ? far.indexOf(least) : -1;
  };

  const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  const places = { Home: 0, End: points.length - 1, Escape: -1 };
  chart.setAttribute("role", "group");
  chart.setAttribute("tabindex", "0");
  chart.addEventListener("keydown", (event) => {
    const step = steps[event.key];
    if (step === undefined && places[event.key] === undefined) return;
    event.preventDefault();
    show(step ? Math.max(0, Math.min(points.length - 1, at + step)) : places[event.key]);
  });
  chart.addEventListener("focus", () => at < 0 && chart.matches(":focus-visible") && show(0));
  chart.addEventListener("blur", () => show(-1));
  for (const kind of ["pointermove", "pointerdown"])
    chart.addEventListener(kind, (event) => show(nearest(event)));
  chart.addEventListener("pointerleave", () => show(-1));
}

// The colour of a CSS variable of the page in its light theme: hexadecimal, and its opacity.
function lightColour(probe, variable) {
  probe.style.color = variable;
  const [red, green, blue, opacity = "1"] = getComputedStyle(probe).color.match(/[\d.]+/g);
  const parts = [red, green, blue].map((part) => Number(part).toString(16).padStart(2, "0"));
  return [`#${parts.join("")}`, opacity];
}

// A chart by itself: colours of the light theme, on white, with its size and its values.
function standalone(chart) {
  const copy = chart.cloneNode(true);
  copy.querySelector(".ring")?.remove();
  for (const name of ["class", "tabindex", "role", "aria-labelledby"]) copy.removeAttribute(name);
  for (const point of copy.querySelectorAll(".points circle")) {
    const title = document.createElementNS(SVG, "title");
    title.textContent = point.dataset.text;
    point.removeAttribute("data-text");
    point.append(title);
  }
  const points = copy.querySelector(".points");
  points?.setAttribute("fill", "none");
  points?.setAttribute("pointer-events", "all");
  const probe = document.body.appendChild(document.createElement("i"));
  probe.style.colorScheme = "light";
  for (const element of copy.querySelectorAll("[style]")) {
    const style = element.getAttribute("style");
    const plain = style.replace(/(fill|stroke):(var\(--[a-z]+\))/g, (_, property, variable) => {
      const [colour, opacity] = lightColour(probe, variable);
      return `${property}:${colour}${opacity === "1" ? "" : `;${property}-opacity:${opacity}`}`;
    });
    element.setAttribute("style", plain);
  }
  probe.remove();
  const [, , width, height] = copy.getAttribute("viewBox").split(" ");
  const fixed = { width, height, "font-family": "sans-serif", "stroke-linejoin": "round" };
  for (const [name, value] of Object.entries(fixed)) copy.setAttribute(name, value);
  const ground = document.createElementNS(SVG, "rect");
  for (const [name, value] of Object.entries({ width, height, fill: "#ffffff" }))
    ground.setAttribute(name, value);
  copy.querySelector("desc").after(ground);
  return `<?xml version="1.0" encoding="UTF-8"?>\n${new XMLSerializer().serializeToString(copy)}\n`;
}

function addSaving(figure, chart) {
  const title = chart.querySelector("title");
  const line = document.createElement("p");
  const button = document.createElement("button");
  line.className = "save";
  button.type = "button";
  button.textContent = "SVG";
  button.ariaLabel = `Save as SVG: ${title.textContent}`;
  button.addEventListener("click", () => {
    const name = title.id.replace(/^chart-|-title$/g, "");
    const detail = { name, format: "svg", text: standalone(chart) };
    document.dispatchEvent(new CustomEvent("save", { detail }));
  });
  line.append("Save as ", button);
  figure.append(line);
}

for (const figure of document.querySelectorAll(".plot")) {
  const charts = figure.querySelectorAll(".chart");
  const tip = document.createElement("output");
  tip.className = "tip";
  for (const chart of charts) showValues(chart, tip);
  addSaving(figure, charts[0]);
  figure.append(tip);
}
