// Lines over time: labelled axes, the values under the pointer or the arrow keys, gaps where nothing was known.
// A plot takes {at: [seconds], KEY: [number or null]} and draws the last `seconds` of it up to `now`.

const SVG = "http://www.w3.org/2000/svg";
const MARGIN = { top: 8, right: 10, bottom: 20, left: 56 };
const GAP = 3.5; // seconds without a point that break a line

export class Plot {
  // series: [{key, name, dashed, filled}]; format(number) for people; logarithmic for what spans decades.
  constructor(root, { title, series, format, logarithmic = false }) {
    Object.assign(this, { series, format, logarithmic, title, cursor: null, points: { at: [] }, now: 0, seconds: 600 });
    this.values = new Map();
    const head = element("figcaption", "plot-head");
    head.append(element("h2", "", title));
    for (const one of series) {
      const entry = element("span", `key key-${one.key}`);
      entry.append(swatch(one), element("span", "", one.name), element("output", "value", "–"));
      this.values.set(one.key, entry.lastChild);
      head.append(entry);
    }
    this.when = element("span", "when muted", "now");
    head.append(this.when);
    this.svg = node("svg", { role: "img", tabindex: "0", class: "plot-area" });
    this.head = head;
    root.classList.add("card", "plot");
    root.append(head, this.svg);
    this.svg.addEventListener("pointermove", (event) => this.moveTo(this.timeAt(event.offsetX)));
    this.svg.addEventListener("pointerleave", () => this.moveTo(null));
    this.svg.addEventListener("blur", () => this.moveTo(null));
    this.svg.addEventListener("keydown", (event) => this.pressed(event));
    new ResizeObserver(() => this.draw()).observe(this.svg);
  }

  show(points, now, seconds) {
    Object.assign(this, { points, now, seconds });
    this.draw();
  }

  draw() {
    const { width, height } = this.svg.getBoundingClientRect();
    if (width < 80 || !this.now) return;
    this.box = { width, height, x0: MARGIN.left, x1: width - MARGIN.right, y0: height - MARGIN.bottom, y1: MARGIN.top };
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const first = this.points.at.findIndex((at) => at >= this.now - this.seconds);
    this.first = first < 0 ? this.points.at.length : first;
    const scale = this.logarithmic ? decades(this.shown()) : linear(this.shown());
    this.y = (number) => this.box.y0 - scale.share(number) * (this.box.y0 - this.box.y1);
    this.x = (at) => this.box.x1 - ((this.now - at) / this.seconds) * (this.box.x1 - this.box.x0);
    const parts = [...this.axes(scale.ticks)];
    for (const one of this.series) parts.push(...this.line(one));
    this.svg.replaceChildren(...parts, ...this.marks());
    this.read();
  }

  shown() {
    return this.series.flatMap(({ key }) => (this.points[key] ?? []).slice(this.first)).filter((number) => number !== null);
  }

  *axes(ticks) {
    const { x0, x1, y0 } = this.box;
    for (const tick of ticks) {
      const y = this.y(tick);
      yield node("line", { class: "grid", x1: x0, x2: x1, y1: y, y2: y });
      yield label(x0 - 8, y + 4, "end", this.format(tick).replace(/\.0+(?!\d)/, ""));
    }
    const step = this.seconds > 300 ? 120 : 30;
    for (let ago = 0; ago <= this.seconds; ago += step) {
      const x = this.x(this.now - ago);
      yield node("line", { class: "tick", x1: x, x2: x, y1: y0, y2: y0 + 4 });
      const text = ago === 0 ? "now" : ago >= 120 ? `−${ago / 60} min` : `−${ago} s`;
      yield label(x, y0 + 16, ago === 0 ? "end" : ago === this.seconds ? "start" : "middle", text);
    }
  }

  *line({ key, dashed, filled }) {
    const { at } = this.points;
    const numbers = this.points[key] ?? [];
    const pieces = [];
    let last = -Infinity;
    for (let index = this.first; index < at.length; index++) {
      if (numbers[index] === null || numbers[index] === undefined) { last = -Infinity; continue; }
      const place = `${this.x(at[index]).toFixed(1)} ${this.y(numbers[index]).toFixed(1)}`;
      if (at[index] - last > GAP) pieces.push({ from: at[index], path: `M${place}h.01` });
      else pieces.at(-1).path += `L${place}`;
      last = pieces.at(-1).to = at[index];
    }
    if (filled) {
      const area = pieces.filter(({ to, from }) => to > from).map(({ from, to, path }) => `${path}L${this.x(to)} ${this.box.y0}L${this.x(from)} ${this.box.y0}Z`);
      yield node("path", { class: `area ${key}`, d: area.join("") });
    }
    yield node("path", { class: `line ${key}${dashed ? " dashed" : ""}`, d: pieces.map(({ path }) => path).join("") });
  }

  *marks() {
    const index = this.nearest();
    if (index === null) return;
    const x = this.x(this.points.at[index]);
    yield node("line", { class: "cursor", x1: x, x2: x, y1: this.box.y1, y2: this.box.y0 });
    for (const { key } of this.series) {
      const number = this.points[key]?.[index];
      if (number !== null && number !== undefined) yield node("circle", { class: `dot ${key}`, cx: x, cy: this.y(number), r: 3.5 });
    }
  }

  // The values in the heading: under the cursor, else the newest.
  read() {
    const { at } = this.points;
    const index = this.nearest();
    const newest = at.length > this.first ? at.length - 1 : null;
    for (const [key, output] of this.values) {
      const number = this.points[key]?.[index ?? newest];
      write(output, number === null || number === undefined ? "–" : this.format(number));
    }
    write(this.when, index === null ? "now" : new Date(at[index] * 1000).toLocaleTimeString([], { hour12: false }));
    const said = this.series.map(({ key, name }) => {
      const most = Math.max(...(this.points[key] ?? []).slice(this.first).filter((number) => number !== null));
      return `${name} ${this.values.get(key).textContent}${Number.isFinite(most) ? `, at most ${this.format(most)}` : ""}`;
    });
    this.svg.setAttribute("aria-label", `${this.title}, the last ${this.seconds / 60} minutes. ${said.join("; ")}. Arrow keys move through time.`);
  }

  nearest() {
    const { at } = this.points;
    if (this.cursor === null || at.length <= this.first) return null;
    let best = this.first;
    for (let index = this.first; index < at.length; index++) if (Math.abs(at[index] - this.cursor) < Math.abs(at[best] - this.cursor)) best = index;
    return best;
  }

  timeAt(x) {
    return this.box ? this.now - ((this.box.x1 - x) / (this.box.x1 - this.box.x0)) * this.seconds : null;
  }

  moveTo(at) {
    this.cursor = at;
    if (this.box) this.draw();
  }

  pressed(event) {
    const { at } = this.points;
    const here = this.nearest() ?? at.length - 1;
    const step = event.shiftKey ? 10 : 1;
    const to = { ArrowLeft: here - step, ArrowRight: here + step, Home: this.first, End: at.length - 1 }[event.key];
    if (event.key === "Escape") this.moveTo(null);
    if (to === undefined || !at.length) return;
    event.preventDefault();
    this.moveTo(at[Math.min(Math.max(to, this.first), at.length - 1)]);
  }
}

// A line without axes, for a table's cell.
export function spark(svg, numbers) {
  const most = Math.max(1e-9, ...numbers.filter((number) => number !== null));
  const width = 80, height = 18, step = width / 59;
  let path = "", pen = "M";
  numbers.slice(-60).forEach((number, index, all) => {
    if (number === null) { pen = "M"; return; }
    path += `${pen}${(width - (all.length - 1 - index) * step).toFixed(1)} ${(height - 1.5 - (number / most) * (height - 3)).toFixed(1)}`;
    pen = "L";
  });
  if (!svg.firstChild) svg.append(node("path", { class: "line calls" }));
  svg.firstChild.setAttribute("d", path);
}

function linear(numbers) {
  const most = Math.max(0, ...numbers);
  const top = most > 0 ? most * 1.05 : 1;
  const rough = top / 4;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * [1, 2, 2.5, 5, 10].find((factor) => factor * unit >= rough);
  const ticks = [];
  for (let tick = 0; tick <= top + step / 1e6; tick += step) ticks.push(tick);
  return { ticks, share: (number) => number / top };
}

function decades(numbers) {
  const some = numbers.filter((number) => number > 0);
  const low = some.length ? Math.floor(Math.log10(Math.min(...some)) + 1e-9) : -4;
  const high = Math.max(low + 1, some.length ? Math.ceil(Math.log10(Math.max(...some)) - 1e-9) : -1);
  const ticks = [];
  for (let power = low; power <= high; power += Math.ceil((high - low) / 4)) ticks.push(10 ** power);
  return { ticks, share: (number) => Math.max(0, (Math.log10(Math.max(number, 1e-12)) - low) / (high - low)) };
}

function label(x, y, anchor, text) {
  const made = node("text", { class: "label", x, y, "text-anchor": anchor });
  made.textContent = text;
  return made;
}

function swatch({ key, dashed }) {
  const svg = node("svg", { class: "swatch", viewBox: "0 0 18 6", "aria-hidden": "true" });
  svg.append(node("path", { class: `line ${key}${dashed ? " dashed" : ""}`, d: "M0 3H18" }));
  return svg;
}

function write(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

function element(name, kind, text = "") {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  made.textContent = text;
  return made;
}

function node(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}
