// A table that sorts by its headers and shows one page of its rows, so that ten thousand are as quick as ten.

function makeTable({ caption, columns, pageRows = 25, onChoose = null, sortBy = null, noRows = "None." }) {
  let rows = [];
  let keep = () => true;
  let shown = [];
  let page = 0;
  let chosen = null;
  let sort = sortBy ?? { key: null, down: false };
  let all = false;

  const head = h("tr");
  const body = h("tbody");
  const status = h("span", { class: "status", role: "status" });
  const step = (label, name, move) =>
    h("button", { type: "button", "aria-label": name, onclick: () => turn(move()) }, label);
  const first = step("«", "First page", () => 0);
  const back = step("‹", "Previous page", () => page - 1);
  const next = step("›", "Next page", () => page + 1);
  const last = step("»", "Last page", () => pages() - 1);
  const pager = h("div", { class: "pager" }, status, h("span", { class: "steps" }, first, back, next, last));
  const table = h("table", {}, h("caption", { class: "hidden" }, caption), h("thead", {}, head), body);
  const element = h("div", { class: "sheet" }, h("div", { class: "scroll" }, table), pager);

  for (const column of columns) {
    const cell = h("th", { scope: "col", class: column.number ? "number" : null });
    if (column.value) {
      column.arrow = h("span", { class: "arrow", "aria-hidden": "true" });
      cell.append(
        h("button", { type: "button", onclick: () => sortOn(column) }, column.label, column.arrow),
      );
    } else cell.append(column.label);
    column.cell = cell;
    head.append(cell);
  }

  const pages = () => Math.max(1, Math.ceil(shown.length / pageRows));

  function sortOn(column) {
    const down = sort.key === column.key ? !sort.down : Boolean(column.number);
    sort = { key: column.key, down };
    arrange();
  }

  function arrange() {
    shown = rows.filter(keep);
    const column = columns.find(({ key }) => key === sort.key);
    if (column) {
      const sign = sort.down ? -1 : 1;
      const keyed = shown.map((row, index) => ({ row, index, value: column.value(row) }));
      const order = column.number
        ? (a, b) => a.value - b.value
        : (a, b) => collator.compare(a.value, b.value);
      keyed.sort((a, b) => sign * order(a, b) || a.index - b.index);
      shown = keyed.map(({ row }) => row);
    }
    for (const { key, cell, arrow } of columns) {
      if (!arrow) continue;
      if (key === sort.key) cell.setAttribute("aria-sort", sort.down ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
      arrow.textContent = key === sort.key ? (sort.down ? " ▼" : " ▲") : "";
    }
    turn(0);
  }

  function turn(to) {
    page = Math.min(pages() - 1, Math.max(0, to));
    draw();
  }

  function draw() {
    const begin = all ? 0 : page * pageRows;
    const end = all ? shown.length : Math.min(shown.length, begin + pageRows);
    body.replaceChildren(...shown.slice(begin, end).map(line));
    if (!shown.length) body.append(h("tr", {}, h("td", { colspan: columns.length, class: "none" }, noRows)));
    const of = shown.length === rows.length ? "" : ` (${count(rows.length)} in all)`;
    status.textContent = shown.length
      ? `${count(begin + 1)} to ${count(end)} of ${count(shown.length)}${of}`
      : `0${of}`;
    first.disabled = back.disabled = page === 0;
    next.disabled = last.disabled = page >= pages() - 1;
    pager.hidden = rows.length <= pageRows && shown.length === rows.length;
  }

  function line(row) {
    const cells = columns.map((column, at) =>
      h(at ? "td" : "th", { scope: at ? null : "row", class: column.number ? "number" : null }, column.show(row)),
    );
    const current = onChoose && row === chosen;
    const element = h("tr", { class: current ? "chosen" : null, "aria-current": current ? "true" : null }, cells);
    if (onChoose) {
      element.classList.add("choosable");
      element.addEventListener("click", (event) => {
        if (!event.target.closest("button, a")) onChoose(row);
      });
    }
    return element;
  }

  return {
    element,
    setRows(given) {
      rows = given;
      arrange();
    },
    setFilter(given) {
      keep = given;
      arrange();
    },
    // Marks a row; with reveal, turns to its page.
    choose(row, reveal = false) {
      chosen = row;
      const at = shown.indexOf(row);
      if (reveal && at >= 0) page = Math.floor(at / pageRows);
      draw();
    },
    showAll(given) {
      all = given;
      draw();
    },
    rows: () => shown,
  };
}

const collator = new Intl.Collator("en", { numeric: true });
