// Puts the page together. Tables need the data only, which stand before this script; pictures come after it.

const data = json("data");
drawTotals(data);
const viewer = makeViewer(data);
const fields = fieldsTable(data, viewer);
const showTypes = typesTable(data);
const showFlags = flagsTable(data);
let slide = null;

async function openPatch(patch) {
  await fields.openPatch(patch);
  byId("fields").scrollIntoView();
  viewer.focus();
}

function chooseSlide(given, go = false) {
  slide = given;
  slides.choose(slide);
  chooser.value = data.slides.indexOf(slide);
  byId("fields-slide").textContent = slide.name;
  const found = slide.share
    ? `${cellsIn(slide.cells)} in ${counted(slide.regions, "region")}, ${percent(slide.share[0])} abnormal (${counted(slide.abnormal, "region")}; 95 % interval ${range(slide.share)})`
    : "no regions";
  byId("slide-summary").textContent = `${counted(slide.fields, "field")}, ${found}.`;
  showTypes(slide);
  showFlags(slide);
  showPictures();
  if (go) byId("slide").scrollIntoView();
}

function showPictures() {
  drawGallery(data, slide, openPatch);
  fields.setSlide(data.slides.indexOf(slide));
}

const slides = slidesTable(data, chooseSlide);
const chooser = h(
  "select",
  { id: "chosen-slide", onchange: () => chooseSlide(data.slides[Number(chooser.value)]) },
  data.slides.map(({ name }, at) => h("option", { value: at }, name.length > 80 ? `${name.slice(0, 79)}…` : name || "(no name)")),
);
byId("slide-chooser").replaceChildren(h("label", { for: "chosen-slide" }, "Slide"), chooser);
if (data.slides.length) {
  chooseSlide(data.slides[0]);
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", showPictures);
} else {
  for (const id of ["slide", "fields"]) byId(id).hidden = true;
}
addEventListener("beforeprint", () => slides.showAll(true));
addEventListener("afterprint", () => slides.showAll(false));
