// The surest and the least sure regions of each type of one slide.

function drawGallery(data, slide, open) {
  const box = byId("gallery");
  const patches = json(`patches-${data.slides.indexOf(slide)}`);
  if (patches === null) {
    box.replaceChildren(h("p", { class: "none" }, document.readyState === "loading" ? "Loading…" : "No pictures."));
    return;
  }
  const strip = (title, type, end) =>
    h(
      "div",
      { class: "strip" },
      h("h5", {}, title),
      h(
        "ul",
        {},
        end.map((patch) => {
          const unsure = hasFlag(data, patch, "unsure");
          const notes = [
            hasFlag(data, patch, "clump") ? cellsIn(patch.cells) : null,
            hasFlag(data, patch, "border") ? "at border" : null,
            unsure ? "unsure" : null,
            patch.abnormal && !data.types[type].abnormal ? `abnormal ${patch.abnormalP.toFixed(2)}` : null,
          ].filter((note) => note !== null);
          const verdict = patch.abnormal ? "abnormal" : "normal";
          const name = [data.types[type].label, `p ${patch.p.toFixed(2)}`, verdict, ...notes].join(", ");
          return h(
            "li",
            {},
            h(
              "button",
              {
                type: "button",
                class: unsure ? "patch unsure" : patch.abnormal ? "patch abnormal" : "patch",
                title: `${name}, ${patch.field}`,
                onclick: () => open(patch),
              },
              h("img", { src: `data:image/jpeg;base64,${patch.jpeg}`, alt: `${name}. Open ${patch.field}`, width: 72, height: 72 }),
              h("span", { "aria-hidden": "true" }, patch.p.toFixed(2)),
              notes.map((note) => h("span", { "aria-hidden": "true" }, note)),
            ),
          );
        }),
      ),
    );
  const order = slide.types.map((_, type) => type).sort((a, b) => slide.types[b].count - slide.types[a].count);
  const groups = order
    .filter((type) => patches[type][0].length)
    .map((type) => {
      const [surest, least] = patches[type];
      return h(
        "section",
        { class: "kind" },
        h("h4", {}, data.types[type].label, h("span", { class: "faint" }, ` ${counted(slide.types[type].count, "region")}`)),
        strip("Surest", type, surest),
        least.length ? strip("Least sure", type, least) : null,
      );
    });
  box.replaceChildren(...(groups.length ? groups : [h("p", { class: "none" }, "No pictures of regions of this slide.")]));
}
