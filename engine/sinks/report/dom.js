// Elements from texts: nothing on this page is ever parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

const h = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);
const byId = (id) => document.getElementById(id);
const json = (id) => {
  const block = byId(id);
  return block ? JSON.parse(block.textContent) : null;
};

const count = (number) => number.toLocaleString("en");
const counted = (number, one) => `${count(number)} ${number === 1 ? one : `${one}s`}`;
// From the fewest to the most.
const between = ([low, high]) => (low === high ? count(low) : `${count(low)} to ${count(high)}`);
const cellsIn = ([low, high]) => (low === high ? counted(low, "cell") : `${between([low, high])} cells`);
const hasFlag = (data, { flags }, name) => (flags & data.flagBits[data.flags.indexOf(name)]) !== 0;
const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;
const range = (share) => `${percent(share[1])} to ${percent(share[2])}`;

// A share with its interval on a scale from 0 to `top`.
function intervalBar(share, top) {
  const [at, low, high] = share.map((value) => 100 * Math.min(1, value / top));
  return svg(
    "svg",
    { class: "interval", viewBox: "0 0 100 14", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("rect", { class: "track", x: 0, y: 5.5, width: 100, height: 3 }),
    svg("rect", { class: "span", x: low, y: 4, width: Math.max(0.8, high - low), height: 6 }),
    svg("rect", { class: "at", x: Math.min(98.6, Math.max(0, at - 0.7)), y: 1, width: 1.4, height: 12 }),
  );
}

const niceTop = (value) => [0.02, 0.05, 0.1, 0.2, 0.5].find((top) => value <= top) ?? 1;

const gradeText = (grade) => (grade ? `${grade}+` : "0");

function gradeChip([grade, low, high]) {
  const sure = low === high;
  const ends = `${gradeText(low)} to ${gradeText(high)}`;
  return h(
    "span",
    { class: "grades" },
    h("span", { class: `grade g${grade}` }, gradeText(grade)),
    sure ? null : h("span", { class: "ends", title: "Grades of the interval's ends" }, ` ${ends}`),
  );
}
