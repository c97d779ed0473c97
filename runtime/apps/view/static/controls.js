// The controls of the picture that is chosen: its cube, what is drawn of it, and with which numbers and colours.
import { getRange } from "./api.js";
import { short } from "./chart.js";

export const KINDS = {
  natural: "Natural", false: "False colour", frame: "Frame", band: "Band", ratio: "Band ratio", index: "Normalised difference",
  residual: "Reprojection residual", signed: "Difference", absolute: "Absolute error", mrae: "MRAE", rmse: "RMSE", angle: "Spectral angle",
};
const BANDS = { false: 3, band: 1, ratio: 2, index: 2, signed: 1, absolute: 1 };
const PICTURES = ["natural", "false", "frame"];
const COMPARISONS = ["signed", "absolute", "mrae", "rmse", "angle"];

export const nearest = (wavelengths, nm) => wavelengths.reduce((best, each, at) => (Math.abs(each - nm) < Math.abs(wavelengths[best] - nm) ? at : best), 0);

/** Return the settings of a new picture of a cube. */
export function newSettings(cubes, cube) {
  const nm = cubes[cube].wavelengths;
  const bands = { false: [640, 550, 460], band: [550], ratio: [650, 550], index: [700, 670], signed: [550], absolute: [550] };
  for (const kind of Object.keys(bands)) bands[kind] = bands[kind].map((each) => nearest(nm, each));
  return { cube, other: cubes[cube].comparable[0] ?? 0, kind: cubes[cube].natural ? "natural" : "band", bands, gain: 0, palettes: {}, limits: {} };
}

/** Return the kinds that a cube offers. */
export function kindsOf(cube) {
  return Object.keys(KINDS).filter((kind) => (kind !== "natural" || cube.natural) && (kind !== "frame" || cube.frame)
    && (kind !== "residual" || cube.residual) && (!COMPARISONS.includes(kind) || cube.comparable.length));
}

export const isPicture = (kind) => PICTURES.includes(kind);
export const isComparison = (kind) => COMPARISONS.includes(kind);
export const palette = (settings) => settings.palettes[settings.kind] || (["signed", "index"].includes(settings.kind) ? "blue-red"
  : isComparison(settings.kind) || settings.kind === "residual" ? "inferno" : settings.kind === "band" ? "grey" : "viridis");

/** Return the key of the numbers that a layer has, under which its limits are kept. */
const limitsKey = (settings) => [settings.kind, settings.cube, settings.other, ...(["band", "signed", "absolute"].includes(settings.kind) ? [] : settings.bands[settings.kind] || [])].join(" ");

export function layerQuery(settings, cubes) {
  const query = { kind: settings.kind, cube: settings.cube, serial: cubes[settings.cube].serial };
  if (BANDS[settings.kind]) query.bands = settings.bands[settings.kind].join(",");
  if (isComparison(settings.kind)) query.other = settings.other;
  if (isPicture(settings.kind)) query.gain = (2 ** settings.gain).toPrecision(4);
  else {
    const { low, high } = settings.limits[limitsKey(settings)] || { low: 0, high: 1 };
    Object.assign(query, { palette: palette(settings), low, high });
  }
  return query;
}

/** Find the limits of a layer of numbers where there are none yet; all bands of a cube share theirs. */
export async function findLimits(settings, cubes, again = false) {
  const key = limitsKey(settings);
  if (isPicture(settings.kind) || (settings.limits[key] && !again)) return;
  const { low, high } = await getRange(layerQuery(settings, cubes));
  settings.limits[key] = { low: Number(low.toPrecision(3)), high: Number(high.toPrecision(3)) };
}

/** Return the number of a layer at the cursor, from the spectra there; null where they do not give it. */
export function layerValue({ kind, bands, cube, other }, spectrumOf, mraeOffset) {
  const a = spectrumOf(cube);
  const [p, q] = bands[kind] || [];
  if (kind === "ratio") return a[p] / a[q];
  if (kind === "index") return (a[p] - a[q]) / (a[p] + a[q]);
  const b = isComparison(kind) ? spectrumOf(other) : null;
  if (!b) return null;
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const length = (values) => Math.sqrt(mean(values.map((value) => value * value)) * values.length);
  const difference = a.map((value, at) => value - b[at]);
  if (kind === "signed") return difference[p];
  if (kind === "absolute") return Math.abs(difference[p]);
  if (kind === "mrae") return mean(difference.map((value, at) => Math.abs(value) / (Math.abs(b[at]) + mraeOffset)));
  if (kind === "rmse") return Math.sqrt(mean(difference.map((value) => value * value)));
  const dot = a.reduce((sum, value, at) => sum + value * b[at], 0);
  return (180 / Math.PI) * Math.acos(Math.min(1, dot / (length(a) * length(b))));
}

function make(parent, name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  parent.append(made);
  return made;
}

/** Add chips of a radio group. */
export function addChips(parent, name, options, chosen, choose) {
  parent.replaceChildren();
  for (const [value, text] of options) {
    const label = make(parent, "label", { className: "chip" });
    const input = make(label, "input", { type: "radio", name, value, checked: value === chosen });
    make(label, "span", { textContent: text });
    input.addEventListener("change", () => choose(value));
  }
}

/** Fill the list of what can be drawn of a cube, in groups. */
export function fillKinds(select, kinds, chosen) {
  const groups = [["Colour", isPicture], ["Numbers of this cube", (kind) => !isPicture(kind) && !isComparison(kind)], ["Comparison", isComparison]];
  select.replaceChildren();
  for (const [label, belongs] of groups) {
    const members = kinds.filter(belongs);
    if (!members.length) continue;
    const group = make(select, "optgroup", { label });
    for (const kind of members) make(group, "option", { value: kind, textContent: KINDS[kind], selected: kind === chosen });
  }
}

function addSelect(parent, text, options, chosen, choose) {
  const label = make(parent, "label", { className: "field" }, `${text} `);
  const select = make(label, "select");
  for (const [value, name] of options) make(select, "option", { value, textContent: name, selected: String(value) === String(chosen) });
  select.addEventListener("change", () => choose(select.value));
}

function addSlider(parent, id, text, least, most, step, value, describe, change) {
  const label = make(parent, "label", { className: "field" }, `${text} `);
  const output = make(label, "output", { textContent: describe(value) });
  const input = make(label, "input", { type: "range", id, min: least, max: most, step, value });
  input.setAttribute("aria-valuetext", describe(value));
  input.addEventListener("input", () => {
    output.textContent = describe(Number(input.value));
    input.setAttribute("aria-valuetext", output.textContent);
    change(Number(input.value));
  });
}

/** Build the controls of a layer. changed() is called after each change; rebuild() where the controls change, too. */
export function buildParameters(parent, settings, scene, changed, rebuild) {
  parent.replaceChildren();
  const cube = scene.cubes[settings.cube];
  const names = cube.wavelengths.map((nm, at) => [at, `${nm} nm`]);
  const { kind } = settings;
  const setBand = (at, value) => {
    settings.bands[kind][at] = Number(value);
    changed();
  };
  if (isComparison(kind)) {
    addSelect(parent, "Against", cube.comparable.map((at) => [at, scene.cubes[at].name]), settings.other, (value) => {
      settings.other = Number(value);
      rebuild();
    });
  }
  if (BANDS[kind] === 1) {
    addSlider(parent, "band", "Band", 0, names.length - 1, 1, settings.bands[kind][0], (at) => names[at][1], (at) => setBand(0, at));
  } else if (BANDS[kind]) {
    const titles = { false: ["Red", "Green", "Blue"], ratio: ["Band a", "Band b"], index: ["Band a", "Band b"] }[kind];
    const box = make(parent, "div", { className: kind === "false" ? "triple" : "pair" });
    titles.forEach((title, at) => addSelect(box, title, names, settings.bands[kind][at], (value) => setBand(at, value)));
  }
  if (isPicture(kind)) {
    const describe = (stops) => `${stops > 0 ? "+" : ""}${stops} EV`;
    addSlider(parent, "exposure", "Exposure", -3, 5, 0.25, settings.gain, describe, (stops) => {
      settings.gain = stops;
      changed();
    });
  } else addColours(parent, settings, scene, changed, rebuild);
}

function addColours(parent, settings, scene, changed, rebuild) {
  addSelect(parent, "Colours", Object.keys(scene.palettes).map((name) => [name, name]), palette(settings), (value) => {
    settings.palettes[settings.kind] = value;
    changed();
  });
  const box = make(parent, "div", { className: "limits" });
  const limits = settings.limits[limitsKey(settings)] || { low: 0, high: 1 };
  for (const [name, text] of [["low", "From"], ["high", "To"]]) {
    const label = make(box, "label", { className: "field" }, text);
    const input = make(label, "input", { type: "number", step: "any", value: short(limits[name]) });
    input.addEventListener("change", () => {
      if (!Number.isFinite(input.valueAsNumber)) return;
      limits[name] = input.valueAsNumber;
      settings.limits[limitsKey(settings)] = limits;
      changed();
    });
  }
  const auto = make(box, "button", { type: "button", textContent: "Auto", className: "field" });
  auto.addEventListener("click", async () => {
    await findLimits(settings, scene.cubes, true);
    rebuild();
  });
}
