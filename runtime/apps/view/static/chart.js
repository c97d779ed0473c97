// Charts in SVG: spectra as curves, errors by band as bars.

const SVG = "http://www.w3.org/2000/svg";
const MARGIN = { left: 42, right: 8, top: 8, bottom: 34 };

function element(parent, name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
}

/** Return round steps that cut a range into about this number of parts. */
export function ticks(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-6; value += step) found.push(Number(value.toPrecision(12)));
  return found;
}

export const short = (value) => (value === null || !Number.isFinite(value) ? "–" : Number(value.toPrecision(3)).toString());

/** Return the colour of a wavelength in nm, roughly, as sRGB. */
function wavelengthColour(nm) {
  const stops = [[380, 70, 0, 110], [430, 60, 40, 220], [470, 0, 110, 255], [495, 0, 190, 200], [530, 30, 190, 50],
    [570, 190, 205, 0], [590, 250, 180, 0], [620, 245, 95, 0], [660, 205, 20, 20], [720, 110, 0, 0]];
  if (nm < stops[0][0] || nm > stops[stops.length - 1][0]) return "rgb(128 128 128)";
  const after = Math.max(1, stops.findIndex((stop) => stop[0] >= nm));
  const [a, b] = [stops[after - 1], stops[after]];
  const part = (nm - a[0]) / (b[0] - a[0]);
  return `rgb(${[1, 2, 3].map((at) => Math.round(a[at] + part * (b[at] - a[at]))).join(" ")})`;
}

class Axes {
  constructor(svg, wavelengths, low, high) {
    svg.replaceChildren();
    this.svg = svg;
    this.width = svg.clientWidth || 350;
    this.height = svg.clientHeight || 200;
    this.left = MARGIN.left;
    this.right = this.width - MARGIN.right;
    this.bottom = this.height - MARGIN.bottom;
    this.nm = wavelengths;
    this.first = wavelengths[0];
    this.last = wavelengths[wavelengths.length - 1];
    [this.low, this.high] = [low, high > low ? high : low + 1];
  }

  x(nm) {
    return this.left + ((nm - this.first) / (this.last - this.first || 1)) * (this.right - this.left);
  }

  y(value) {
    return this.bottom - ((value - this.low) / (this.high - this.low)) * (this.bottom - MARGIN.top);
  }

  draw(unit) {
    for (const value of ticks(this.low, this.high, 4)) {
      const y = this.y(value);
      element(this.svg, "line", { class: "grid", x1: this.left, x2: this.right, y1: y, y2: y });
      element(this.svg, "text", { x: this.left - 6, y: y + 4, "text-anchor": "end" }, short(value));
    }
    const strip = (this.right - this.left) / this.nm.length + 0.5;
    for (const nm of this.nm) {
      const x = this.left + ((nm - this.first) / (this.last - this.first || 1)) * (this.right - this.left - strip);
      element(this.svg, "rect", { x, y: this.bottom + 3, width: strip, height: 5, fill: wavelengthColour(nm) });
    }
    for (const nm of ticks(this.first, this.last, 6)) {
      element(this.svg, "text", { x: this.x(nm), y: this.bottom + 20, "text-anchor": "middle" }, String(nm));
    }
    element(this.svg, "text", { x: this.right, y: this.height - 2, "text-anchor": "end" }, unit);
  }
}

/** Draw the interval value ± error of a curve as an area; values that are missing interrupt it. */
function drawInterval(svg, axes, { values, errors, wavelengths, colour }) {
  const parts = [[]];
  values.forEach((value, at) => {
    if (value === null || errors[at] === null) parts.push([]);
    else parts[parts.length - 1].push([axes.x(wavelengths[at]), axes.y(value + errors[at]), axes.y(value - errors[at])]);
  });
  for (const part of parts.filter((points) => points.length > 1)) {
    const edge = [...part.map(([x, high]) => [x, high]), ...part.map(([x, , low]) => [x, low]).reverse()];
    const points = edge.map((point) => point.map((place) => place.toFixed(1)).join(",")).join(" ");
    element(svg, "polygon", { class: "interval", points, ...(colour ? { fill: colour } : {}) });
  }
}

/** Draw curves: [{values, errors, wavelengths, style, colour}]; marked wavelengths get a line. */
export function drawSpectra(svg, wavelengths, curves, marked) {
  const withErrors = curves.filter((curve) => curve.errors);
  const ends = withErrors.flatMap((curve) => curve.values.flatMap((value, at) => (value === null ? [] : [value - curve.errors[at], value + curve.errors[at]])));
  const values = curves.flatMap((curve) => curve.values).filter((value) => value !== null).concat(ends);
  const high = Math.max(0.05, ...values);
  const low = Math.min(0, ...values);
  const axes = new Axes(svg, wavelengths, low, high * 1.04);
  axes.draw("wavelength, nm");
  for (const nm of marked) element(svg, "line", { class: "band", x1: axes.x(nm), x2: axes.x(nm), y1: MARGIN.top, y2: axes.bottom });
  for (const curve of withErrors) drawInterval(svg, axes, curve);
  for (const curve of curves) {
    let path = "";
    let pen = "M";
    curve.values.forEach((value, at) => {
      if (value === null) pen = "M";
      else {
        path += `${pen}${axes.x(curve.wavelengths[at]).toFixed(1)} ${axes.y(value).toFixed(1)}`;
        pen = "L";
      }
    });
    element(svg, "path", { class: `curve ${curve.style}`, d: path, ...(curve.colour ? { stroke: curve.colour } : {}) });
  }
}

/** Return the wavelength at a place of the chart. */
export function wavelengthAt(svg, clientX, wavelengths) {
  const box = svg.getBoundingClientRect();
  const part = (clientX - box.left - MARGIN.left) / (box.width - MARGIN.left - MARGIN.right);
  return wavelengths[0] + part * (wavelengths[wavelengths.length - 1] - wavelengths[0]);
}

/** Draw a bar for each band. */
export function drawBars(svg, wavelengths, values) {
  const axes = new Axes(svg, wavelengths, 0, Math.max(1e-6, ...values) * 1.04);
  axes.draw("wavelength, nm");
  const step = (axes.right - axes.left) / wavelengths.length;
  values.forEach((value, at) => {
    const y = axes.y(value);
    const bar = { class: "bar", x: axes.left + at * step + 1, y, width: Math.max(1, step - 2), height: Math.max(0, axes.bottom - y), rx: 1.5 };
    element(element(svg, "g", {}), "rect", bar).append(Object.assign(document.createElementNS(SVG, "title"), { textContent: `${wavelengths[at]} nm: ${short(value)}` }));
  });
}
