// One field, zoomable, with its regions drawn over it from their boxes.

function makeViewer(data) {
  const MOST = 16;
  const state = { row: null, image: null, boxes: [], at: -1, scale: 1, x: 0, y: 0, fitted: true };
  const canvas = h("canvas", {
    tabindex: 0,
    role: "application",
    "aria-roledescription": "zoomable picture",
    "aria-label": "No field chosen",
    "aria-describedby": "viewer-keys",
  });
  const pen = canvas.getContext("2d");
  const stage = h("div", { class: "stage" }, canvas);
  const details = h("div", { class: "details", role: "status" });
  const title = h("p", { class: "field-name" }, "Choose a field from the list");

  const which = h(
    "select",
    { id: "viewer-which", onchange: draw },
    h("option", { value: "all" }, "all regions"),
    h("option", { value: "abnormal" }, "abnormal"),
    h("option", { value: "normal" }, "normal"),
    h("option", { value: "none" }, "no boxes"),
    data.kinds.length
      ? h(
          "optgroup",
          { label: "Kind" },
          h("option", { value: "kind 0" }, "red cells"),
          data.kinds.map(({ label, number }) => h("option", { value: `kind ${number}` }, `${label}s`)),
        )
      : null,
    h(
      "optgroup",
      { label: "Type" },
      data.types.map(({ label }, type) => h("option", { value: `type ${type}` }, label)),
    ),
    h(
      "optgroup",
      { label: "Flag" },
      data.flags.map((flag, at) => h("option", { value: `flag ${data.flagBits[at]}` }, flag)),
    ),
  );
  const button = (label, name, act) => h("button", { type: "button", "aria-label": name, title: name, onclick: act }, label);
  const tools = h(
    "div",
    { class: "tools", role: "group", "aria-label": "View" },
    button("−", "Zoom out", () => zoom(1 / 1.5)),
    button("+", "Zoom in", () => zoom(1.5)),
    button("Fit", "Fit the field", fit),
    button("‹", "Previous region", () => stepRegion(-1)),
    button("›", "Next region", () => stepRegion(1)),
    h("label", { for: "viewer-which" }, "Show"),
    which,
  );
  const legend = h(
    "p",
    { class: "legend" },
    h("span", {}, svg("svg", { viewBox: "0 0 22 14", "aria-hidden": "true" }, svg("rect", { class: "key abnormal", x: 2, y: 2, width: 18, height: 10 })), "abnormal, thick"),
    h("span", {}, svg("svg", { viewBox: "0 0 22 14", "aria-hidden": "true" }, svg("rect", { class: "key normal", x: 2, y: 2, width: 18, height: 10 })), "normal, thin"),
    h("span", {}, svg("svg", { viewBox: "0 0 22 14", "aria-hidden": "true" }, svg("rect", { class: "key dashed", x: 2, y: 2, width: 18, height: 10 })), "flagged, dashed"),
    h("span", {}, svg("svg", { viewBox: "0 0 22 14", "aria-hidden": "true" }, svg("rect", { class: "key unsure", x: 2, y: 2, width: 18, height: 10 })), "unsure, grey"),
    data.kinds.map(({ label, number }) =>
      h("span", {}, svg("svg", { viewBox: "0 0 22 14", "aria-hidden": "true" }, svg("rect", { class: `key kind-${number}`, x: 2, y: 2, width: 18, height: 10 })), label),
    ),
  );
  const keys = h(
    "p",
    { class: "hint", id: "viewer-keys" },
    "Wheel or + and − zoom, drag or arrow keys move, 0 fits, N and P step through the regions, Escape lets go.",
  );
  byId("viewer").replaceChildren(title, tools, stage, details, legend, keys);

  // Where a full-resolution pixel lies on the canvas: left + scale * x. The image itself may be reduced.
  function size() {
    return [canvas.clientWidth, canvas.clientHeight];
  }

  function fit() {
    if (!state.row) return;
    const [width, height] = size();
    state.scale = Math.min(width / state.row.width, height / state.row.height);
    state.x = (width - state.scale * state.row.width) / 2;
    state.y = (height - state.scale * state.row.height) / 2;
    state.fitted = true;
    draw();
  }

  const least = () => {
    const [width, height] = size();
    return 0.5 * Math.min(width / state.row.width, height / state.row.height);
  };

  function zoom(factor, at) {
    if (!state.row) return;
    const [x, y] = at ?? size().map((side) => side / 2);
    const scale = Math.min(MOST, Math.max(least(), state.scale * factor));
    state.x = x - ((x - state.x) * scale) / state.scale;
    state.y = y - ((y - state.y) * scale) / state.scale;
    state.scale = scale;
    state.fitted = false;
    draw();
  }

  function move(x, y) {
    state.x += x;
    state.y += y;
    state.fitted = false;
    draw();
  }

  function wanted(region) {
    const [kind, value] = which.value.split(" ");
    if (kind === "abnormal") return region.abnormal === 1;
    if (kind === "normal") return !region.kind && region.abnormal === 0;
    if (kind === "kind") return (region.kind ?? 0) === Number(value);
    if (kind === "type") return region.types.some(([type]) => type === Number(value));
    if (kind === "flag") return (region.flags & Number(value)) !== 0;
    return kind === "all";
  }

  let asked = false;
  function draw() {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      paint();
    });
  }

  function paint() {
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = size();
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    if (!state.row || !state.image) return;
    const { scale, x, y, row } = state;
    pen.imageSmoothingEnabled = scale < 3;
    pen.drawImage(state.image, x, y, scale * row.width, scale * row.height);
    const style = getComputedStyle(document.documentElement);
    const inkOf = (region) => {
      if (region.kind) return style.getPropertyValue(`--box-kind-${region.kind}`);
      if (hasFlag(data, region, "unsure")) return style.getPropertyValue("--box-unsure");
      return style.getPropertyValue(region.abnormal ? "--box-abnormal" : "--box-normal");
    };
    const outline = (region, colour, width) => {
      const [left, top, across, down] = region.box;
      pen.setLineDash(region.flags ? [7, 5] : []);
      pen.lineWidth = width;
      pen.strokeStyle = colour;
      pen.strokeRect(x + scale * left, y + scale * top, scale * across, scale * down);
    };
    state.boxes.forEach((region, at) => {
      if (at === state.at || !wanted(region)) return;
      outline(region, inkOf(region), region.abnormal && !hasFlag(data, region, "unsure") ? 2.5 : 1.25);
    });
    if (state.at >= 0) {
      const region = state.boxes[state.at];
      outline(region, "#000", 6);
      outline(region, "#ffe94d", 3.5);
    }
  }

  function describe() {
    if (state.at < 0) {
      const red = state.boxes.filter((region) => !region.kind);
      const abnormal = red.filter((region) => region.abnormal).length;
      const cut = red.filter((region) => hasFlag(data, region, "border")).length;
      const others = data.kinds
        .map(({ label, number }) => [label, state.boxes.filter(({ kind }) => kind === number).length])
        .filter(([, seen]) => seen)
        .map(([label, seen]) => `, ${counted(seen, label)}`);
      details.replaceChildren(
        state.row && state.image ? `${counted(red.length, "region")}, ${count(abnormal)} abnormal, ${count(cut)} at the border${others.join("")}. Choose one for what it holds.` : "",
      );
      return;
    }
    const region = state.boxes[state.at];
    const [left, top, across, down] = region.box;
    const flags = data.flags.filter((_, at) => region.flags & data.flagBits[at]);
    const name = ([type, p]) => `${data.types[type].label} ${p.toFixed(2)}`;
    if (region.kind) {
      const { label } = data.kinds.find(({ number }) => number === region.kind) ?? { label: "no red cell" };
      details.replaceChildren(
        h("b", {}, `Region ${state.at}: `),
        `${label}, score ${region.score.toFixed(2)}. `,
        flags.length ? `Flagged ${flags.join(", ")}. ` : "",
        h("span", { class: "faint" }, `${Math.round(across)} by ${Math.round(down)} px at ${Math.round(left)}, ${Math.round(top)}.`),
      );
      return;
    }
    const unsure = hasFlag(data, region, "unsure");
    const held = region.types.length ? region.types.map(name).join(", ") : `no type over its threshold; likeliest ${name(region.likeliest)}`;
    const holds = unsure ? `unsure, no type is likely: ${held}` : held;
    const callsNormal = region.types.length && !region.types.some(([type]) => data.types[type].abnormal);
    const reason =
      region.abnormal && callsNormal
        ? `Its type is normal, but the chance of an abnormal cell in it is at or over the pack's threshold of ${data.threshold.toFixed(2)}. `
        : "";
    details.replaceChildren(
      h("b", {}, `Region ${state.at}: `),
      `${holds}. `,
      h("span", { class: region.abnormal ? "bad" : "" }, `${region.abnormal ? "Abnormal" : "Normal"}, p ${region.p.toFixed(2)}. `),
      reason,
      hasFlag(data, region, "clump") ? `${cellsIn(region.cells)}. ` : "",
      flags.length ? `Flagged ${flags.join(", ")}. ` : "",
      h("span", { class: "faint" }, `${Math.round(across)} by ${Math.round(down)} px at ${Math.round(left)}, ${Math.round(top)}.`),
    );
  }

  function chooseRegion(at, into = false) {
    state.at = at;
    if (at >= 0 && into) {
      const [left, top, across, down] = state.boxes[at].box;
      const [width, height] = size();
      const whole = Math.min(width, height);
      state.scale = Math.min(MOST, Math.max(state.scale, whole / (4 * Math.max(across, down, 1))));
      state.x = width / 2 - state.scale * (left + across / 2);
      state.y = height / 2 - state.scale * (top + down / 2);
      state.fitted = false;
    }
    describe();
    draw();
  }

  function stepRegion(by) {
    const choices = state.boxes.map((region, at) => at).filter((at) => which.value === "none" || wanted(state.boxes[at]));
    if (!choices.length) return;
    const now = choices.indexOf(state.at);
    const next = now < 0 ? (by > 0 ? 0 : choices.length - 1) : (now + by + choices.length) % choices.length;
    chooseRegion(choices[next], true);
  }

  function regionAt(event) {
    const frame = canvas.getBoundingClientRect();
    const x = (event.clientX - frame.left - state.x) / state.scale;
    const y = (event.clientY - frame.top - state.y) / state.scale;
    let best = -1;
    let area = Infinity;
    state.boxes.forEach((region, at) => {
      const [left, top, across, down] = region.box;
      const inside = x >= left && x <= left + across && y >= top && y <= top + down;
      if (inside && wanted(region) && across * down < area) [best, area] = [at, across * down];
    });
    return best;
  }

  canvas.addEventListener(
    "wheel",
    (event) => {
      if (!state.row) return;
      event.preventDefault();
      const frame = canvas.getBoundingClientRect();
      zoom(Math.exp(-event.deltaY / 400), [event.clientX - frame.left, event.clientY - frame.top]);
    },
    { passive: false },
  );
  let drag = null;
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    drag = { x: event.clientX, y: event.clientY, far: false };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!drag) return;
    const [x, y] = [event.clientX - drag.x, event.clientY - drag.y];
    if (!drag.far && Math.hypot(x, y) < 4) return;
    drag = { x: event.clientX, y: event.clientY, far: true };
    move(x, y);
  });
  canvas.addEventListener("pointerup", (event) => {
    if (drag && !drag.far) chooseRegion(regionAt(event));
    drag = null;
  });
  canvas.addEventListener("pointercancel", () => {
    drag = null;
  });
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const acts = {
      "+": () => zoom(1.25),
      "=": () => zoom(1.25),
      "-": () => zoom(0.8),
      0: fit,
      ArrowLeft: () => move(40, 0),
      ArrowRight: () => move(-40, 0),
      ArrowUp: () => move(0, 40),
      ArrowDown: () => move(0, -40),
      n: () => stepRegion(1),
      p: () => stepRegion(-1),
      Escape: () => chooseRegion(-1),
    };
    const act = acts[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act || !state.row) return;
    event.preventDefault();
    act();
  });
  new ResizeObserver(() => (state.fitted ? fit() : draw())).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

  function clear(text) {
    Object.assign(state, { row: null, image: null, boxes: [], at: -1 });
    title.replaceChildren(text);
    canvas.setAttribute("aria-label", text);
    describe();
    draw();
  }

  // Shows a field; with a region, that one close up. Resolves when it is drawn.
  async function show(row, region = -1) {
    const picture = byId(`picture-${row.number}`);
    if (!picture) {
      if (row.pictured && document.readyState === "loading") clear("Loading…");
      else clear(row.error === null ? `${row.name} has no picture in this file` : `${row.name}: ${row.error}`);
      return;
    }
    const image = new Image();
    image.src = `data:image/jpeg;base64,${picture.textContent}`;
    Object.assign(state, { row, image: null, boxes: [], at: -1 });
    await image.decode();
    if (state.row !== row) return;
    state.image = image;
    state.boxes = json(`boxes-${row.number}`);
    title.replaceChildren(h("bdi", {}, row.name), h("span", { class: "faint" }, ` ${row.width} × ${row.height} px`));
    canvas.setAttribute("aria-label", `Field ${row.name}, ${counted(row.regions, "region")}, ${count(row.abnormal)} abnormal`);
    fit();
    chooseRegion(region < state.boxes.length ? region : -1, true);
  }

  return { show, clear, state, focus: () => canvas.focus({ preventScroll: true }) };
}
