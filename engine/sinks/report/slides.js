// Totals of the run, the list of slides, and what one slide holds.

const gradedOf = (slide) =>
  slide.types
    .map((found, type) => ({ type, ...found }))
    .filter(({ grades }) => grades && grades[0] > 0)
    .sort((a, b) => b.grades[0] - a.grades[0] || b.count - a.count);

// The kinds other than red that the pack detects, and where a slide or a field has their number.
const otherKinds = (data) =>
  [
    { kind: "white cell", label: "White cells", key: "white" },
    { kind: "platelet", label: "Platelets", key: "platelets" },
  ].filter(({ kind }) => data.kinds.some(({ label }) => label === kind));

const perHundred = (number, redCells) => ((100 * number) / redCells).toFixed(1);

function drawTotals(data) {
  const sum = (key) => data.slides.reduce((total, slide) => total + slide[key], 0);
  const regions = sum("regions");
  const cells = [0, 1].map((end) => data.slides.reduce((total, slide) => total + slide.cells[end], 0));
  const whole = sum("whole");
  const abnormal = sum("wholeAbnormal");
  const redCells = sum("redCells");
  const failed = sum("failed");
  const saturated = sum("saturated");
  const card = (label, value, note, alarm) =>
    h(
      "div",
      { class: alarm ? "card alarm" : "card" },
      h("span", { class: "label" }, label),
      h("span", { class: "value" }, value),
      h("span", { class: "note" }, note),
    );
  byId("totals").replaceChildren(
    card("Slides", count(data.slides.length), `${counted(sum("fields"), "field")}`),
    card("Red cells", between(cells), `in ${counted(regions, "region")}: single cells, or several that touch`),
    card(
      "Called abnormal",
      whole ? percent(abnormal / whole) : "–",
      `${count(abnormal)} of ${count(whole)} regions, all slides together; ${count(regions - whole)} that the border cuts are left out`,
    ),
    ...otherKinds(data).map(({ label, key }) =>
      card(label, count(sum(key)), redCells ? `${perHundred(sum(key), redCells)} for 100 red cells` : "no red cells"),
    ),
    card("Failed fields", count(failed), failed ? "their reasons stand under Fields" : "every field was read", failed),
    ...(sum("unfamiliar")
      ? [card("Unfamiliar fields", count(sum("unfamiliar")), "unlike what the pack was trained on: types are not to be trusted", true)]
      : []),
    card("Saturated fields", count(saturated), saturated ? "regions may be missing there" : "no field overfilled", saturated),
  );
}

function slidesTable(data, onChoose) {
  const top = niceTop(Math.max(0, ...data.slides.map(({ share }) => (share ? share[2] : 0))));
  const chips = (slide) => {
    const graded = gradedOf(slide);
    if (!graded.length) return h("span", { class: "faint" }, slide.regions ? "none over its cut-off" : "no regions");
    return h(
      "ul",
      { class: "chips" },
      graded.slice(0, 4).map(({ type, grades }) =>
        h("li", {}, h("span", { class: `grade g${grades[0]}` }, gradeText(grades[0])), ` ${data.types[type].label}`),
      ),
      graded.length > 4 ? h("li", { class: "faint" }, `and ${graded.length - 4} more`) : null,
    );
  };
  const columns = [
    {
      key: "name",
      label: "Slide",
      value: (slide) => slide.name,
      show: (slide) =>
        h("button", { type: "button", class: "link", onclick: () => onChoose(slide, true) }, h("bdi", {}, slide.name || "(no name)")),
    },
    { key: "fields", label: "Fields", number: true, value: (slide) => slide.fields, show: (slide) => count(slide.fields) },
    {
      key: "failed",
      label: "Failed",
      number: true,
      value: (slide) => slide.failed,
      show: (slide) => (slide.failed ? h("b", { class: "bad" }, count(slide.failed)) : "0"),
    },
    { key: "regions", label: "Regions", number: true, value: (slide) => slide.regions, show: (slide) => count(slide.regions) },
    {
      key: "border",
      label: "At border",
      number: true,
      value: (slide) => slide.regions - slide.whole,
      show: (slide) => h("span", { title: "left out of shares and grades" }, count(slide.regions - slide.whole)),
    },
    { key: "cells", label: "Cells", number: true, value: (slide) => slide.cells[0], show: (slide) => between(slide.cells) },
    ...otherKinds(data).map(({ label, key }) => ({
      key,
      label,
      number: true,
      value: (slide) => slide[key],
      show: (slide) =>
        h("span", { title: slide.redCells ? `${perHundred(slide[key], slide.redCells)} for 100 red cells` : null }, count(slide[key])),
    })),
    {
      key: "share",
      label: "Abnormal",
      number: true,
      value: (slide) => (slide.share ? slide.share[0] : -1),
      show: (slide) => (slide.share ? percent(slide.share[0]) : "–"),
    },
    {
      key: "interval",
      label: `95 % interval, 0 to ${percent(top)}`,
      show: (slide) =>
        slide.share ? h("span", { class: "ranged" }, intervalBar(slide.share, top), h("span", {}, range(slide.share))) : "",
    },
    {
      key: "grades",
      label: "Highest grades",
      number: false,
      show: chips,
    },
  ];
  const table = makeTable({ caption: "Slides of the run", columns, onChoose: (slide) => onChoose(slide, true), noRows: "No slide fits the filter." });

  const text = h("input", { type: "search", id: "slide-text", autocomplete: "off", oninput: filter });
  const type = h(
    "select",
    { id: "slide-type", onchange: filter },
    h("option", { value: "" }, "any type"),
    data.types.map(({ label, abnormal }, index) => (abnormal ? h("option", { value: index }, label) : null)),
  );
  const least = h(
    "select",
    { id: "slide-grade", onchange: filter },
    h("option", { value: 0 }, "any grade"),
    [1, 2, 3].map((grade) => h("option", { value: grade }, grade === 3 ? "3+" : `${grade}+ or more`)),
  );
  function filter() {
    const wanted = text.value.trim().toLowerCase();
    const grade = Number(least.value);
    const holds = ({ grades }) => grades && grades[0] >= Math.max(grade, type.value === "" ? 0 : 1);
    table.setFilter(
      (slide) =>
        slide.name.toLowerCase().includes(wanted) &&
        ((grade === 0 && type.value === "") ||
          (type.value === "" ? slide.types.some(holds) : holds(slide.types[Number(type.value)]))),
    );
  }
  byId("slides-table").replaceChildren(
    h(
      "div",
      { class: "filters", role: "search", "aria-label": "Filter the slides" },
      h("label", { for: "slide-text" }, "Name"),
      text,
      h("label", { for: "slide-type" }, "with"),
      type,
      h("label", { for: "slide-grade" }, "at"),
      least,
    ),
    table.element,
  );
  table.setRows(data.slides);
  return table;
}

function typesTable(data) {
  const table = { top: 1 };
  const columns = [
    {
      key: "label",
      label: "Type",
      value: ({ type }) => data.types[type].label,
      show: ({ type }) => [
        svg("svg", { class: "mark", viewBox: "0 0 10 10", "aria-hidden": "true" }, markOf(data.types[type].abnormal)),
        data.types[type].label,
      ],
    },
    { key: "count", label: "Regions", number: true, value: ({ count: n }) => n, show: ({ count: n }) => count(n) },
    { key: "cut", label: "At border", number: true, value: ({ cut }) => cut, show: ({ cut }) => count(cut) },
    { key: "share", label: "Share", number: true, value: ({ share }) => (share ? share[0] : -1), show: ({ share }) => (share ? percent(share[0]) : "–") },
    {
      key: "interval",
      label: "95 % interval",
      show: ({ share }) => (share ? h("span", { class: "ranged" }, intervalBar(share, table.top), h("span", {}, range(share))) : ""),
    },
    {
      key: "grade",
      label: "Grade",
      number: true,
      value: ({ grades }) => (grades ? grades[0] : -1),
      show: ({ grades, type }) => {
        if (grades) return gradeChip(grades);
        return h("span", { class: "faint" }, data.types[type].abnormal ? "–" : "normal");
      },
    },
  ];
  const made = makeTable({ caption: "Cell types of the slide", columns, pageRows: 40, sortBy: { key: "share", down: true } });
  byId("types-table").replaceChildren(made.element);
  return (slide) => {
    table.top = niceTop(Math.max(0, ...slide.types.map(({ share }) => (share ? share[2] : 0))));
    made.setRows(slide.types.map((found, type) => ({ type, ...found })));
    byId("types-basis").textContent =
      `Shares and grades of types are of the ${counted(slide.whole, "region")} that no border cuts; ` +
      `${counted(slide.regions - slide.whole, "region")} at the border ${slide.regions - slide.whole === 1 ? "is" : "are"} left out.`;
  };
}

// Normal: a disc. Abnormal: a diamond.
const markOf = (abnormal) =>
  abnormal
    ? svg("path", { class: "abnormal", d: "M5 0 10 5 5 10 0 5Z" })
    : svg("circle", { class: "normal", cx: 5, cy: 5, r: 4 });

function flagsTable(data) {
  const about = {
    border: "the box touches the edge of the field, so the cell may be cut",
    clump: "more than one cell is likely",
    blurred: "out of focus",
    unsure: "no type is likely",
  };
  return (slide) => {
    const rows = [
      ...data.flags.map((flag, at) => [flag, `${count(slide.flags[at])} of ${counted(slide.regions, "region")}`, about[flag] ?? ""]),
      ["unfamiliar", `${count(slide.unfamiliar)} of ${counted(slide.fields, "field")}`, "unlike what the pack was trained on"],
      ["saturated", `${count(slide.saturated)} of ${counted(slide.fields, "field")}`, "the detector's output was full, so regions may be missing"],
      ["failed", `${count(slide.failed)} of ${counted(slide.fields, "field")}`, "could not be read or analysed"],
    ];
    byId("flags-table").replaceChildren(
      h(
        "table",
        { class: "facts" },
        h("caption", { class: "hidden" }, "What was flagged on the slide"),
        h(
          "tbody",
          {},
          rows.map(([flag, of, why]) =>
            h("tr", {}, h("th", { scope: "row" }, flag), h("td", {}, of, h("span", { class: "why" }, why))),
          ),
        ),
      ),
    );
  };
}
