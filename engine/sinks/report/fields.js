// The list of a slide's fields beside the viewer.

function fieldRows({ fields, pictured, ...flagged }) {
  const unfamiliar = new Set(flagged.unfamiliar);
  const uncovered = new Set(flagged.uncovered);
  const saturated = new Set(fields.saturated);
  const seen = new Set(pictured);
  return fields.number.map((number, at) => ({
    number,
    slide: fields.slide[at],
    name: fields.name[at],
    width: fields.width[at],
    height: fields.height[at],
    regions: fields.regions[at],
    abnormal: fields.abnormal[at],
    whole: fields.whole[at],
    wholeAbnormal: fields.wholeAbnormal[at],
    flags: fields.flags[at],
    white: fields.white[at],
    platelets: fields.platelets[at],
    unfamiliar: unfamiliar.has(number),
    uncovered: uncovered.has(number),
    saturated: saturated.has(number),
    error: fields.error[number] ?? null,
    pictured: seen.has(number),
  }));
}

const shareTitle = ({ wholeAbnormal, whole, regions }) =>
  `${count(wholeAbnormal)} of ${counted(whole, "region")}; ${count(regions - whole)} at the border left out`;

function fieldsTable(data, viewer) {
  const rows = fieldRows(data);
  const bySlide = new Map();
  for (const row of rows) {
    if (!bySlide.has(row.slide)) bySlide.set(row.slide, []);
    bySlide.get(row.slide).push(row);
  }
  const notes = (row) => [
    row.error !== null ? h("span", { class: "bad" }, h("b", {}, "failed "), h("bdi", {}, row.error)) : null,
    row.unfamiliar ? h("b", { class: "bad" }, "unfamiliar ") : null,
    row.uncovered ? h("b", { class: "bad" }, "uncovered ") : null,
    row.saturated ? h("b", { class: "bad" }, "saturated ") : null,
    row.white ? h("span", {}, `${counted(row.white, "white cell")} `) : null,
    row.platelets ? h("span", {}, `${counted(row.platelets, "platelet")} `) : null,
    ...data.flags.map((flag, at) => (row.flags[at] ? h("span", {}, `${row.flags[at]} ${flag} `) : null)),
    row.error === null && !row.pictured ? h("span", { class: "faint" }, "no picture") : null,
  ];
  const open = (row) => {
    table.choose(row);
    return viewer.show(row);
  };
  const columns = [
    {
      key: "name",
      label: "Field",
      value: (row) => row.name,
      show: (row) => h("button", { type: "button", class: "link", onclick: () => open(row) }, h("bdi", {}, row.name || "(no name)")),
    },
    { key: "regions", label: "Regions", number: true, value: (row) => row.regions, show: (row) => (row.error === null ? count(row.regions) : "–") },
    {
      key: "abnormal",
      label: "Abnormal",
      number: true,
      value: (row) => (row.whole ? row.wholeAbnormal / row.whole : -1),
      show: (row) => (row.whole ? h("span", { title: shareTitle(row) }, percent(row.wholeAbnormal / row.whole)) : "–"),
    },
    { key: "notes", label: "To know", show: notes },
  ];
  const table = makeTable({ caption: "Fields of the slide", columns, pageRows: 12, onChoose: open, noRows: "No field fits the filter." });
  const text = h("input", { type: "search", id: "field-text", autocomplete: "off", oninput: filter });
  const which = h(
    "select",
    { id: "field-which", onchange: filter },
    h("option", { value: "all" }, "all fields"),
    h("option", { value: "pictured" }, "with a picture"),
    h("option", { value: "failed" }, "failed"),
    h("option", { value: "saturated" }, "saturated"),
    h("option", { value: "unfamiliar" }, "unfamiliar"),
    otherKinds(data).map(({ label, key }) => h("option", { value: key }, `with ${label.toLowerCase()}`)),
    data.flags.map((flag, at) => h("option", { value: at }, `with ${flag} regions`)),
  );
  function filter() {
    const wanted = text.value.trim().toLowerCase();
    const tests = {
      all: () => true,
      pictured: (row) => row.pictured,
      failed: (row) => row.error !== null,
      saturated: (row) => row.saturated,
      unfamiliar: (row) => row.unfamiliar,
      white: (row) => row.white > 0,
      platelets: (row) => row.platelets > 0,
    };
    const fits = tests[which.value] ?? ((row) => row.flags[Number(which.value)] > 0);
    table.setFilter((row) => fits(row) && row.name.toLowerCase().includes(wanted));
  }
  byId("fields-table").replaceChildren(
    h(
      "div",
      { class: "filters", role: "search", "aria-label": "Filter the fields" },
      h("label", { for: "field-text" }, "Name"),
      text,
      h("label", { for: "field-which" }, "Show"),
      which,
    ),
    table.element,
  );
  let current = [];
  return {
    async setSlide(at) {
      current = bySlide.get(at) ?? [];
      table.setRows(current);
      const first = current.find((row) => row.pictured);
      if (first) {
        table.choose(first);
        await viewer.show(first);
      } else viewer.clear(current.length ? "No field of this slide has a picture in this file" : "This slide has no fields in this file");
    },
    async openPatch({ field, region }) {
      const row = current.find(({ name }) => name === field);
      if (!row) return viewer.clear(`${field} is not listed in this file`);
      text.value = "";
      which.value = "all";
      filter();
      table.choose(row, true);
      return viewer.show(row, region);
    },
  };
}
