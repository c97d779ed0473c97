// One picture: tiles of a layer on a canvas, the cursor, the pins, and gestures of mouse, fingers and keys.
import { tileUrl } from "./api.js";

const MOST_TILES = 400;
const CLICK_PX = 4;
const LONG_TAP_MS = 500;

export class Pane {
  /** @param figure The pane's element. @param hooks Functions: cursor(x, y), pin(x, y), view(change), active(), redraw(). */
  constructor(figure, hooks) {
    this.figure = figure;
    this.canvas = figure.querySelector("canvas");
    this.hooks = hooks;
    this.tiles = new Map();
    this.layer = this.shownLayer = this.waitingLayer = null;
    this.cube = null;
    this.pointers = new Map();
    this.listen();
    new ResizeObserver(() => this.hooks.redraw()).observe(this.canvas);
  }

  /** True if all tiles of what was asked for are drawn. */
  get drawn() {
    return !this.cube || (this.shownLayer === this.layer && !this.waitingLayer && !this.pending);
  }

  /** Show a layer: a query string. While it loads, the layer before it stays. */
  show(cube, layer) {
    const sameSize = this.cube && cube.width === this.cube.width && cube.height === this.cube.height;
    if (!sameSize) this.shownLayer = null;
    this.cube = cube;
    if (layer === this.layer) return;
    // While tiles of a layer come, only the newest of the layers after it is kept waiting
    if (this.layer && this.layer !== this.shownLayer && sameSize && this.pending) this.waitingLayer = layer;
    else this.start(layer);
    this.hooks.redraw();
  }

  start(layer) {
    this.layer = layer;
    this.waitingLayer = null;
    this.message("");
  }

  message(text) {
    const element = this.figure.querySelector(".message");
    element.hidden = !text;
    element.textContent = text;
  }

  /** Scale in CSS pixels for each pixel of the cube, and the place of the cube's corner. */
  transform(view) {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const fit = Math.min(width / this.cube.width, height / this.cube.height);
    const scale = fit * view.zoom;
    return { scale, left: width / 2 - view.u * this.cube.width * scale, top: height / 2 - view.v * this.cube.height * scale };
  }

  draw(view, cursor, pins) {
    if (!this.cube || !this.layer || !this.canvas.clientWidth) return;
    const ratio = window.devicePixelRatio || 1;
    const width = Math.round(this.canvas.clientWidth * ratio);
    const height = Math.round(this.canvas.clientHeight * ratio);
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const place = this.transform(view);
    context.imageSmoothingEnabled = place.scale * ratio < 1;
    const level = Math.max(0, Math.min(this.cube.levels - 1, Math.floor(Math.log2(1 / (place.scale * ratio)))));
    if (this.shownLayer && this.shownLayer !== this.layer) this.drawLayer(context, this.shownLayer, place, level, false);
    this.pending = !this.drawLayer(context, this.layer, place, level, true);
    if (!this.pending) {
      this.shownLayer = this.layer;
      if (this.waitingLayer) {
        this.start(this.waitingLayer);
        this.hooks.redraw();
      }
    }
    this.drawMarks(context, place, cursor, pins);
  }

  /** Draw the tiles that are there, coarse ones first; return true if all of the wanted level are. */
  drawLayer(context, layer, place, wanted, load) {
    const top = this.cube.levels - 1;
    let complete = true;
    for (let level = top; level >= wanted; level--) {
      if (level !== wanted && level !== top) continue;
      const side = 256 << level;
      const size = side * place.scale;
      const columns = Math.ceil(this.cube.width / side);
      const rows = Math.ceil(this.cube.height / side);
      const firstColumn = Math.max(0, Math.floor(-place.left / size));
      const lastColumn = Math.min(columns - 1, Math.floor((this.canvas.clientWidth - place.left) / size));
      const firstRow = Math.max(0, Math.floor(-place.top / size));
      const lastRow = Math.min(rows - 1, Math.floor((this.canvas.clientHeight - place.top) / size));
      for (let row = firstRow; row <= lastRow; row++) {
        for (let column = firstColumn; column <= lastColumn; column++) {
          const image = this.tile(tileUrl(layer, level, column, row), load && (level === wanted || wanted !== 0));
          if (!image) {
            if (level === wanted) complete = false;
            continue;
          }
          const width = image.naturalWidth * (1 << level) * place.scale;
          const height = image.naturalHeight * (1 << level) * place.scale;
          context.drawImage(image, place.left + column * size, place.top + row * size, width, height);
        }
      }
    }
    return complete;
  }

  /** Return a tile that has been loaded, or null; ask for it where load is true. */
  tile(url, load) {
    let tile = this.tiles.get(url);
    if (tile) {
      this.tiles.delete(url); // to the end: the tiles at the front are dropped first
      this.tiles.set(url, tile);
    } else if (load) {
      tile = { image: new Image(), ready: false };
      this.tiles.set(url, tile);
      tile.image.onload = () => {
        tile.ready = true;
        this.hooks.redraw();
      };
      tile.image.onerror = () => {
        tile.failed = true;
        this.explain(url);
        this.hooks.redraw();
      };
      tile.image.src = url;
      while (this.tiles.size > MOST_TILES) this.tiles.delete(this.tiles.keys().next().value);
    }
    if (tile && tile.failed) return EMPTY;
    return tile && tile.ready ? tile.image : null;
  }

  async explain(url) {
    try {
      const response = await fetch(url);
      if (!response.ok) this.message((await response.json()).error);
    } catch {
      this.message("The server does not answer.");
    }
  }

  drawMarks(context, place, cursor, pins) {
    const at = (x, y) => [place.left + (x + 0.5) * place.scale, place.top + (y + 0.5) * place.scale];
    for (const [number, pin] of pins.entries()) {
      if (pin.width !== this.cube.width || pin.height !== this.cube.height) continue;
      const [x, y] = at(pin.x, pin.y);
      context.beginPath();
      context.arc(x, y, 8, 0, 2 * Math.PI);
      context.fillStyle = pin.colour;
      context.fill();
      context.lineWidth = 1.5;
      context.strokeStyle = "#ffffff";
      context.stroke();
      context.fillStyle = "#000000";
      context.font = "bold 10px sans-serif";
      context.textAlign = "center";
      context.textBaseline = "middle";
      context.fillText(String(number + 1), x, y + 0.5);
    }
    if (!cursor) return;
    const [x, y] = at(cursor.x, cursor.y);
    const box = Math.max(place.scale, 3);
    for (const [style, wide] of [["rgb(0 0 0 / 75%)", 3], ["#ffffff", 1.2]]) {
      context.strokeStyle = style;
      context.lineWidth = wide;
      context.beginPath();
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        context.moveTo(x + dx * (box / 2 + 3), y + dy * (box / 2 + 3));
        context.lineTo(x + dx * (box / 2 + 14), y + dy * (box / 2 + 14));
      }
      context.rect(x - box / 2, y - box / 2, box, box);
      context.stroke();
    }
  }

  // Gestures

  listen() {
    const canvas = this.canvas;
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const type of ["pointerup", "pointercancel"]) canvas.addEventListener(type, (event) => this.up(event));
    canvas.addEventListener("focus", () => this.hooks.active());
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.hooks.view({ zoom: Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), about: this.fraction(event) });
    }, { passive: false });
  }

  /** Place of an event in the cube: fractions of its width and height, and the place in the pane. */
  fraction(event) {
    const box = this.canvas.getBoundingClientRect();
    const place = this.transform(this.hooks.currentView());
    const [px, py] = [event.clientX - box.left, event.clientY - box.top];
    return { u: (px - place.left) / (this.cube.width * place.scale), v: (py - place.top) / (this.cube.height * place.scale) };
  }

  pixel(event) {
    const { u, v } = this.fraction(event);
    const [x, y] = [Math.floor(u * this.cube.width), Math.floor(v * this.cube.height)];
    return x >= 0 && y >= 0 && x < this.cube.width && y < this.cube.height ? [x, y] : null;
  }

  down(event) {
    if (!this.cube || event.button > 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    this.travel = this.pointers.size > 1 ? Infinity : 0;
    this.downAt = event.timeStamp;
  }

  move(event) {
    if (!this.cube) return;
    const before = this.pointers.get(event.pointerId);
    if (!before) {
      const pixel = this.pixel(event);
      if (pixel) this.hooks.cursor(...pixel);
      return;
    }
    const others = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
    const [dx, dy] = [event.clientX - before.x, event.clientY - before.y];
    this.travel += Math.hypot(dx, dy);
    this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    const place = this.transform(this.hooks.currentView());
    const shift = { du: -dx / (this.cube.width * place.scale), dv: -dy / (this.cube.height * place.scale) };
    if (others.length) {
      const distance = (at) => Math.hypot(at.x - others[0].x, at.y - others[0].y);
      const zoom = distance({ x: event.clientX, y: event.clientY }) / (distance(before) || 1);
      this.hooks.view({ zoom, about: this.fraction(event), du: shift.du / 2, dv: shift.dv / 2 });
    } else if (this.travel > CLICK_PX) this.hooks.view(shift);
  }

  up(event) {
    if (!this.pointers.delete(event.pointerId) || event.type === "pointercancel") return;
    this.hooks.active();
    const pixel = this.travel <= CLICK_PX ? this.pixel(event) : null;
    if (!pixel) return;
    this.hooks.cursor(...pixel);
    // A finger has no other way to move the cursor than a tap
    if (event.pointerType === "mouse" || event.timeStamp - this.downAt > LONG_TAP_MS) this.hooks.pin();
  }
}

const EMPTY = document.createElement("canvas");
EMPTY.width = EMPTY.height = 1;
EMPTY.naturalWidth = EMPTY.naturalHeight = 1;
