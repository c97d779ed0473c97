// The page: its state, and what connects pictures, controls, spectra and keys.
import { getErrors, getScene, getSpectra, latestWins } from "./api.js";
import { drawBars, short } from "./chart.js";
import { KINDS, addChips, buildParameters, fillKinds, findLimits, isComparison, isPicture, kindsOf, layerQuery, layerValue, nearest, newSettings, palette } from "./controls.js";
import { Pane } from "./pane.js";
import { Spectra } from "./spectra.js";

const byId = (id) => document.getElementById(id);
const LIVE_POLL_MS = 400;
const LOST_POLL_MS = 5000;

let scene = null;
let split = false;
let active = 0;
let cursor = null;
let dirty = false;
let showing = 0;
const settings = [];
const view = { zoom: 1, u: 0.5, v: 0.5 };

function redraw() {
  if (dirty) return;
  dirty = true;
  requestAnimationFrame(() => {
    dirty = false;
    const shown = panes.filter((_, index) => !index || split);
    for (const pane of shown) pane.draw(view, cursor, spectra.pins);
    document.documentElement.dataset.drawn = String(showing === 0 && shown.every((pane) => pane.drawn));
  });
}

const panes = [0, 1].map((index) => new Pane(byId(`pane-${index}`), {
  redraw,
  currentView: () => view,
  active: () => activate(index),
  cursor: (x, y) => moveCursor(x, y, index),
  pin: () => pinSoon(),
  view: changeView,
}));

const spectra = new Spectra({ changed: redraw, bandAt: (nm) => setBand(nearest(shownCube(active).wavelengths, nm)), markedWavelengths });

const shownCube = (index) => scene.cubes[settings[index].cube];

// Pictures

function changeView({ zoom = 1, about = null, du = 0, dv = 0 }) {
  const next = Math.min(200, Math.max(0.5, view.zoom * zoom));
  if (about) {
    const part = 1 - view.zoom / next;
    view.u += (about.u - view.u) * part;
    view.v += (about.v - view.v) * part;
  }
  view.zoom = next;
  view.u = Math.min(1, Math.max(0, view.u + du));
  view.v = Math.min(1, Math.max(0, view.v + dv));
  redraw();
}

function fit() {
  Object.assign(view, { zoom: 1, u: 0.5, v: 0.5 });
  redraw();
}

function activate(index) {
  if (active === index) return;
  active = index;
  buildControls();
}

function layerTitle(index) {
  const { kind, bands, other } = settings[index];
  const nm = (bands[kind] || []).map((at) => shownCube(index).wavelengths[at]);
  const detail = { ratio: nm.join(" / "), index: nm.join(", ") }[kind] ?? nm.join(", ");
  const against = isComparison(kind) ? ` against ${scene.cubes[other].name}` : "";
  return `${shownCube(index).name} · ${KINDS[kind]}${detail ? `, ${detail} nm` : ""}${against}`;
}

async function showPane(index) {
  const pane = panes[index];
  const chosen = settings[index];
  document.documentElement.dataset.drawn = "false";
  showing += 1;
  try {
    await findLimits(chosen, scene.cubes);
  } catch (error) {
    pane.message(error.message);
  } finally {
    showing -= 1;
  }
  pane.show(shownCube(index), new URLSearchParams(layerQuery(chosen, scene.cubes)).toString());
  const title = layerTitle(index);
  pane.figure.querySelector(".title").textContent = title;
  pane.canvas.setAttribute("aria-label", `Picture ${"AB"[index]}: ${title}`);
  const scale = pane.figure.querySelector(".scale");
  scale.hidden = isPicture(chosen.kind);
  if (!scale.hidden) {
    const { low, high } = layerQuery(chosen, scene.cubes);
    scale.querySelector(".low").textContent = short(low);
    scale.querySelector(".high").textContent = `${short(high)}${chosen.kind === "angle" ? "°" : ""}`;
    scale.querySelector(".bar").style.background = `linear-gradient(90deg, ${scene.palettes[palette(chosen)].join(", ")})`;
  }
}

/** Put two pictures beside or below each other, whichever makes them larger. */
function arrangePanes() {
  const element = document.querySelector(".panes");
  const { clientWidth: width, clientHeight: height } = element;
  const { width: columns, height: rows } = shownCube(0);
  const caption = 40;
  const beside = Math.min(width / 2 / columns, (height - caption) / rows);
  const below = Math.min(width / columns, (height / 2 - caption) / rows);
  element.classList.toggle("two", split);
  element.classList.toggle("below", split && below > beside);
}

async function showAll() {
  byId("pane-1").hidden = !split;
  arrangePanes();
  byId("split").setAttribute("aria-pressed", String(split));
  panes.forEach((pane, index) => pane.figure.classList.toggle("active", index === active));
  await Promise.all((split ? [0, 1] : [0]).map(showPane));
  showErrors();
  redraw();
}

// Controls

async function buildControls() {
  const chosen = settings[active];
  byId("pane-choice").hidden = !split;
  addChips(byId("pane-choice"), "pane", [["0", "Picture A"], ["1", "Picture B"]], String(active), (value) => activate(Number(value)));
  byId("cube-field").hidden = scene.cubes.length < 2;
  byId("cube").replaceChildren(...scene.cubes.map((cube, at) => new Option(cube.name, at, false, at === chosen.cube)));
  const kinds = kindsOf(shownCube(active));
  if (!kinds.includes(chosen.kind)) chosen.kind = kinds[0];
  fillKinds(byId("kind"), kinds, chosen.kind);
  await rebuildParameters();
}

async function rebuildParameters() {
  ask(); // before the wait: a click that pins asks after this, and the latest query wins
  await showAll();
  const changed = () => {
    ask();
    showPane(active);
    spectra.draw();
  };
  buildParameters(byId("parameters"), settings[active], scene, changed, rebuildParameters);
  spectra.draw();
}

function setBand(at) {
  const chosen = settings[active];
  const count = shownCube(active).wavelengths.length;
  const band = Math.min(count - 1, Math.max(0, at));
  if (!["band", "signed", "absolute"].includes(chosen.kind)) chosen.kind = "band";
  chosen.bands[chosen.kind][0] = band;
  say(`Band ${shownCube(active).wavelengths[band]} nm`);
  buildControls();
}

function markedWavelengths() {
  const { kind, bands } = settings[active];
  return (bands[kind] || []).map((at) => shownCube(active).wavelengths[at]);
}

function toggleSplit() {
  split = !split;
  if (!split) active = 0;
  buildControls();
}

// Spectra

const askSpectra = latestWins(getSpectra, (answer, query) => {
  const cubes = query.cubes.split(",").map(Number);
  const curves = cubes.map((at, index) => ({ name: scene.cubes[at]?.name, wavelengths: scene.cubes[at]?.wavelengths, values: answer.spectra[index], errors: answer.errors[index] }));
  const { width, height } = scene.cubes[cubes[0]];
  spectra.show({ x: answer.x, y: answer.y, width, height, curves: curves.filter((curve) => curve.values && curve.wavelengths) });
  readOut(answer, (cube) => answer.spectra[cubes.indexOf(cube)]);
  if (query.asked) performance.measure("spectrum", { start: query.asked, end: performance.now() });
  if (query.pin) spectra.pin();
}, (error) => { byId("readout").textContent = error.message; });

function ask(pin = false) {
  if (!cursor) return;
  const index = cursor.pane && split ? 1 : 0;
  const cubes = [settings[index].cube];
  if (split) cubes.push(settings[1 - index].cube);
  if (isComparison(settings[index].kind)) cubes.push(settings[index].other);
  if (index !== active) cubes.push(settings[active].other);
  const query = { x: cursor.x, y: cursor.y, radius: byId("radius").value, cubes: [...new Set(cubes)].join(",") };
  Object.defineProperties(query, { asked: { value: performance.now() }, pin: { value: pin } }); // not sent
  askSpectra(query);
}

function moveCursor(x, y, index, pin = false) {
  if (cursor && cursor.x === x && cursor.y === y && cursor.pane === index) return;
  cursor = { x, y, pane: index };
  redraw();
  ask(pin);
}

function pinSoon() {
  if (cursor) ask(true);
  else stepCursor([0, 0], true); // the middle of the picture
}

/** Say the pixel, the value of a band, and the number of the picture that is chosen. */
function readOut({ x, y }, spectrumOf) {
  const chosen = settings[active];
  const [first, second] = spectra.current.curves;
  if (!first) return;
  const at = Math.min(chosen.bands[chosen.kind]?.[0] ?? nearest(first.wavelengths, 550), first.values.length - 1);
  const parts = [`Column <b>${x}</b>, row <b>${y}</b><br>at ${first.wavelengths[at]} nm <b>${short(first.values[at])}</b>`];
  if (second) parts.push(`dashed <b>${short(second.values[Math.min(at, second.values.length - 1)])}</b>`);
  const value = spectrumOf(chosen.cube) ? layerValue(chosen, spectrumOf, scene.mraeOffset) : null;
  if (value !== null) parts.push(`${KINDS[chosen.kind].toLowerCase()} <b>${short(value)}</b>`);
  byId("readout").innerHTML = parts.join(", "); // numbers and names of this page alone
}

let lastSaid = 0;
function say(text) {
  lastSaid = performance.now();
  const time = lastSaid;
  setTimeout(() => { if (time === lastSaid) byId("spoken").textContent = text; }, 250);
}

// Errors

let errorsOf = "";
async function showErrors() {
  const index = [active, 1 - active].find((at) => (split || !at) && isComparison(settings[at]?.kind)) ?? 0;
  const { cube, other } = settings[index];
  const second = isComparison(settings[index].kind) ? other : split ? settings[1].cube : scene.cubes[cube].comparable[0];
  const fits = scene.cubes[cube].comparable.includes(second) && (split || isComparison(settings[index].kind));
  byId("errors").hidden = !fits;
  if (!fits) return;
  const key = [scene.cubes[cube].serial, scene.cubes[second].serial].join(" ");
  if (key !== errorsOf) {
    errorsOf = key;
    byId("errors-text").textContent = "Comparing …";
    try {
      errorsShown = { ...(await getErrors(cube, second)), cube, second };
    } catch (error) {
      byId("errors-text").textContent = error.message;
      return;
    }
    if (key !== errorsOf) return;
  }
  drawErrors();
}

let errorsShown = null;
function drawErrors() {
  if (!errorsShown || byId("errors").hidden) return;
  const { cube, second, step, mrae, rmse, psnr, angle, bands } = errorsShown;
  const pixels = step > 1 ? `, from 1 pixel in ${step * step}` : "";
  byId("errors-text").textContent = `${scene.cubes[cube].name} against ${scene.cubes[second].name}: MRAE ${short(mrae)}, RMSE ${short(rmse)}, `
    + `PSNR ${psnr === null ? "∞" : psnr.toFixed(1)} dB, mean angle ${short(angle)}°${pixels}`;
  const measure = byId("errors-measure").value;
  const wavelengths = scene.cubes[cube].wavelengths;
  drawBars(byId("errors-chart"), wavelengths, bands[measure]);
  const worst = bands[measure].indexOf(Math.max(...bands[measure]));
  byId("errors-chart").setAttribute("aria-label", `${measure.toUpperCase()} by band, largest at ${wavelengths[worst]} nm: ${short(bands[measure][worst])}`);
}

// Keys, buttons, theme

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, dialog *")) return;
  const step = event.shiftKey ? 10 : 1;
  const move = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
  const onCanvas = event.target.matches("canvas");
  const actions = {
    "+": () => changeView({ zoom: 1.5 }), "=": () => changeView({ zoom: 1.5 }), "-": () => changeView({ zoom: 1 / 1.5 }), 0: fit,
    p: pinSoon, s: toggleSplit, a: () => activate(0), b: () => split && activate(1), "?": () => byId("help").showModal(),
    ",": () => setBand(currentBand() - 1), ".": () => setBand(currentBand() + 1),
  };
  if (move && onCanvas) stepCursor(move);
  else if (event.key === "Enter" && onCanvas) pinSoon();
  else if (actions[event.key.toLowerCase()]) actions[event.key.toLowerCase()]();
  else return;
  event.preventDefault();
}

const currentBand = () => settings[active].bands[settings[active].kind]?.[0] ?? settings[active].bands.band[0];

function stepCursor([dx, dy], pin = false) {
  const { width, height } = shownCube(active);
  const from = cursor || { x: width >> 1, y: height >> 1 };
  const [x, y] = [Math.min(width - 1, Math.max(0, from.x + dx)), Math.min(height - 1, Math.max(0, from.y + dy))];
  moveCursor(x, y, active, pin);
  const { u, v, zoom } = view;
  const half = 0.5 / Math.max(1, zoom); // keep the cursor in sight
  const inside = (at, centre) => Math.min(at + half, Math.max(at - half, centre));
  changeView({ du: inside(x / width, u) - u, dv: inside(y / height, v) - v });
  setTimeout(() => say(byId("readout").textContent), 100);
}

function setTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  const name = { auto: "Auto", light: "Light", dark: "Dark" }[theme];
  byId("theme").textContent = `◐ ${name}`;
  byId("theme").setAttribute("aria-label", `◐ ${name} theme`);
  localStorage.setItem("theme", theme);
  redraw();
}

function listen() {
  byId("split").addEventListener("click", toggleSplit);
  byId("fit").addEventListener("click", fit);
  byId("zoom-in").addEventListener("click", () => changeView({ zoom: 1.5 }));
  byId("zoom-out").addEventListener("click", () => changeView({ zoom: 1 / 1.5 }));
  byId("pin").addEventListener("click", pinSoon);
  byId("help-open").addEventListener("click", () => byId("help").showModal());
  byId("radius").addEventListener("change", () => ask());
  byId("errors-measure").addEventListener("change", drawErrors);
  byId("cube").addEventListener("change", () => {
    settings[active].cube = Number(byId("cube").value);
    settings[active].other = shownCube(active).comparable[0] ?? 0;
    buildControls();
  });
  byId("kind").addEventListener("change", () => {
    settings[active].kind = byId("kind").value;
    rebuildParameters();
  });
  byId("theme").addEventListener("click", () => {
    const themes = ["auto", "light", "dark"];
    setTheme(themes[(themes.indexOf(document.documentElement.dataset.theme || "auto") + 1) % 3]);
  });
  document.addEventListener("keydown", onKey);
  addEventListener("resize", () => {
    if (settings.length) arrangePanes();
    spectra.draw();
    drawErrors();
  });
}

// Start, and the live preview

function summarise() {
  const { name, width, height, wavelengths, note } = scene.cubes[0];
  const others = scene.cubes.length > 1 ? `, and ${scene.cubes.length - 1} more` : "";
  byId("summary").textContent = `${name}, ${width}×${height} px, ${wavelengths.length} bands${note ? `, ${note}` : ""}${others}`;
  document.title = `${name} – CCNet view`;
  byId("status").textContent = scene.status;
  byId("status").classList.toggle("live", scene.live);
}

async function followStream() {
  let wait = LIVE_POLL_MS;
  try {
    const next = await getScene();
    if (next.cubes.length && next.cubes[0].serial !== scene.cubes[0]?.serial) {
      scene = next;
      begin();
      ask();
    }
  } catch {
    byId("status").textContent = "The stream has ended, or the server does not answer.";
    byId("status").classList.remove("live");
    wait = LOST_POLL_MS;
  }
  setTimeout(followStream, wait);
}

function begin() {
  if (!scene.cubes.length) {
    byId("summary").textContent = "Waiting for the first cube …";
    return;
  }
  if (!settings.length) {
    const second = scene.cubes[0].comparable[0] ?? 0;
    settings.push(newSettings(scene.cubes, 0), newSettings(scene.cubes, second));
    split = scene.cubes.length > 1 && scene.cubes[0].comparable.length > 0;
    buildControls();
  } else showAll();
  summarise();
}

setTheme(localStorage.getItem("theme") || "auto");
listen();
scene = await getScene();
begin();
if (scene.live) followStream();
document.documentElement.dataset.ready = "true";
