// The spectrum under the cursor, pinned spectra, their table and their CSV.
import { drawSpectra, short, wavelengthAt } from "./chart.js";

const COLOURS = ["#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#f0e442", "#d55e00", "#8f9bff", "#b5b5b5"];

const finite = (values) => values.filter((value) => value !== null);
const mean = (values) => finite(values).reduce((sum, value) => sum + value, 0) / (finite(values).length || 1);

export class Spectra {
  /** @param hooks Functions: changed(), bandAt(nm), markedWavelengths(). */
  constructor(hooks) {
    this.hooks = hooks;
    this.pins = [];
    this.current = null;
    this.chart = document.getElementById("chart");
    document.getElementById("clear").addEventListener("click", () => this.remove(null));
    document.getElementById("export").addEventListener("click", () => this.save());
    this.chart.addEventListener("click", (event) => {
      if (this.current) hooks.bandAt(wavelengthAt(this.chart, event.clientX, this.current.curves[0].wavelengths));
    });
  }

  /** Show spectra at the cursor: {x, y, width, height, curves: [{name, wavelengths, values}]}. */
  show(current) {
    this.current = current;
    this.draw();
  }

  pin() {
    if (!this.current) return;
    const used = new Set(this.pins.map((pin) => pin.colour));
    const colour = COLOURS.find((each) => !used.has(each)) || COLOURS[this.pins.length % COLOURS.length];
    this.pins.push({ ...this.current, colour });
    this.changed();
  }

  remove(index) {
    if (index === null) this.pins.length = 0;
    else this.pins.splice(index, 1);
    this.changed();
  }

  changed() {
    for (const name of ["clear", "export"]) document.getElementById(name).disabled = !this.pins.length;
    const table = document.getElementById("pins");
    table.hidden = !this.pins.length;
    table.querySelector("tbody").replaceChildren(...this.pins.map((pin, index) => this.tableRow(pin, index)));
    this.draw();
    this.hooks.changed();
  }

  tableRow(pin, index) {
    const row = document.createElement("tr");
    const { values, wavelengths } = pin.curves[0];
    const peak = wavelengths[values.indexOf(Math.max(...finite(values)))];
    for (const text of [String(index + 1), `${pin.x}, ${pin.y}`, short(mean(values)), `${peak} nm`]) {
      row.append(Object.assign(document.createElement("td"), { textContent: text }));
    }
    const swatch = Object.assign(document.createElement("span"), { className: "swatch" });
    swatch.style.background = pin.colour;
    row.firstChild.prepend(swatch);
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: "×" });
    button.setAttribute("aria-label", `Remove pin ${index + 1}`);
    button.addEventListener("click", () => this.remove(index));
    row.append(document.createElement("td"));
    row.lastChild.append(button);
    return row;
  }

  draw() {
    const curves = this.pins.map((pin) => ({ ...pin.curves[0], style: "", colour: pin.colour }));
    if (this.current) this.current.curves.forEach((curve, at) => curves.push({ ...curve, style: at ? "other" : "cursor" }));
    if (!curves.length) return;
    drawSpectra(this.chart, curves[curves.length - 1].wavelengths, curves, this.hooks.markedWavelengths());
    this.chart.setAttribute("aria-label", this.describe());
  }

  describe() {
    const pins = `${this.pins.length} pinned spectra`;
    if (!this.current) return pins;
    const { values, wavelengths } = this.current.curves[0];
    const [low, high] = [Math.min(...finite(values)), Math.max(...finite(values))];
    return `Spectrum at column ${this.current.x}, row ${this.current.y}: from ${short(low)} to ${short(high)}, `
      + `largest at ${wavelengths[values.indexOf(high)]} nm; ${pins}`;
  }

  /** Return the pinned spectra as CSV: a row for each wavelength, a column for each spectrum. */
  csv() {
    const columns = this.pins.flatMap((pin) => pin.curves.map((curve) => ({ ...curve, title: `${curve.name} (${pin.x} ${pin.y})` })));
    const wavelengths = [...new Set(columns.flatMap((column) => column.wavelengths))].sort((a, b) => a - b);
    const quote = (text) => `"${text.replace(/^[=+@-]/, "'$&").replaceAll('"', '""')}"`;
    const lines = [["wavelength_nm", ...columns.map((column) => quote(column.title))].join(",")];
    for (const nm of wavelengths) lines.push([nm, ...columns.map((column) => column.values[column.wavelengths.indexOf(nm)] ?? "")].join(","));
    return `${lines.join("\r\n")}\r\n`;
  }

  save() {
    const url = URL.createObjectURL(new Blob([this.csv()], { type: "text/csv" }));
    Object.assign(document.createElement("a"), { href: url, download: "spectra.csv" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  }
}
