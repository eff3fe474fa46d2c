// The page: an overview of all plugins, and one plugin by itself (#/plugin/NAME). Nothing is ever set as markup.

import { Plot, spark } from "./plot.js";
import { Refused, act, ask, setToken, takeToken, watch } from "./wire.js";
import { bytes, clock, count, moment, oneLine, percent, plain, rate, seconds, span } from "./words.js";

const MOST_POINTS = 600, MOST_LINES = 500, SPARK = 60;
const $ = (id) => document.getElementById(id);

const page = {
  state: null, // the newest event of the host
  link: { state: "connecting" },
  skew: 0, // the dashboard's clock less ours
  range: 120,
  sort: { key: "name", down: false },
  sparks: new Map(),
  stores: new Map(), // plugin, or "" for all: {number, at, calls, errors, p50, p99}
  name: null, // the plugin that is looked at
  busy: false,
};

// ---------------------------------------------------------------- small things

function write(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

function make(name, kind = "", ...children) {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  made.append(...children);
  return made;
}

function foreign(text, most = 300) {
  return make("bdi", "", oneLine(text, most));
}

const now = () => Date.now() / 1000 + page.skew;

// The same, but one at a time: who asks while it is under way waits for that.
function single(step) {
  let running = null;
  return () => (running ??= step().finally(() => { running = null; }));
}

// Do something again and again, as long as the page is looked at and `wanted`.
function every(milliseconds, wanted, step) {
  const again = async () => {
    if (wanted() && !document.hidden) {
      try { await step(); } catch (error) { if (!(error instanceof Refused) && !(error instanceof TypeError) && error.name !== "TimeoutError") throw error; }
    }
    setTimeout(again, milliseconds);
  };
  again();
}

// ---------------------------------------------------------------- words for states: a sign, a word, a colour

const SIGNS = { good: "●", middling: "▲", bad: "■", none: "○" };
const HEALTH = { healthy: "good", degraded: "middling", unhealthy: "bad", offline: "bad", unknown: "none" };
const STATES = { loaded: "good", draining: "middling", "given up": "bad", broken: "bad", "not loaded": "none", disabled: "none" };
const BREAKERS = { closed: "none", off: "none", "half-open": "middling", open: "bad" };

function chip(target, tone, word, title = "") {
  target.className = `chip ${tone}`;
  write(target, `${SIGNS[tone]} ${oneLine(word, 40)}`);
  if (target.title !== title) target.title = title;
}

function place(plugin) {
  if (!plugin.isolation) return "–";
  if (plugin.isolation === "none") return "in-process";
  return plugin.workers.length > 1 ? `worker × ${plugin.workers.length}` : "worker";
}

// One word for how a plugin is: what keeps it from being called goes before what it says of itself.
function standing(plugin) {
  if (plugin.state !== "loaded") return [STATES[plugin.state] ?? "none", plugin.state, plugin.failed || plugin.health.message];
  if (plugin.health.status === "unknown") return ["good", "loaded", ""];
  return [HEALTH[plugin.health.status] ?? "none", plugin.health.status, plugin.health.message];
}

// ---------------------------------------------------------------- events from the host

function heard(kind, data) {
  if (kind === "missed") return;
  page.skew = data.link.now - Date.now() / 1000;
  page.link = data.link;
  if (kind === "state" && data.pid !== undefined) {
    if (page.state && page.state.pid !== data.pid) forget();
    page.state = data;
    for (const plugin of data.plugins) push(plugin.name, data.point[plugin.name]?.[0] ?? null);
    for (const [name, store] of page.stores) feed(name, store, data);
  }
  render();
}

function lost(error) {
  if (error instanceof Refused && error.status === 401) { askForToken(error.message); return; }
  const why = error instanceof Refused ? error.message : "is hostkit dashboard still running?";
  page.link = { ...page.link, state: "lost", why };
  render();
}

function forget() {
  page.stores.clear();
  page.sparks.clear();
  log.next = 0;
  load("");
  if (page.name) load(page.name);
}

function push(name, number) {
  const sparks = page.sparks.get(name) ?? [];
  sparks.push(number);
  if (sparks.length > SPARK) sparks.shift();
  page.sparks.set(name, sparks);
}

// Add the newest point; where some in between are missing, ask for all of them.
function feed(name, store, { number, at, point }) {
  if (number <= store.number || store.loading) return;
  if (number > store.number + 1) { load(name); return; }
  const values = point[name] ?? [null, null, null, null];
  store.number = number;
  for (const [index, key] of ["calls", "errors", "p50", "p99"].entries()) store[key].push(values[index]);
  store.at.push(at);
  if (store.at.length > MOST_POINTS) for (const key of ["at", "calls", "errors", "p50", "p99"]) store[key].shift();
}

async function load(name) {
  const store = page.stores.get(name) ?? { number: 0, at: [], calls: [], errors: [], p50: [], p99: [] };
  if (store.loading) return;
  page.stores.set(name, store);
  store.loading = true;
  try {
    const { recent, ...points } = await ask("/api/points", { name });
    Object.assign(store, points);
    for (const [plugin, numbers] of Object.entries(recent ?? {})) page.sparks.set(plugin, numbers);
  } catch (error) {
    if (!(error instanceof Refused) && !(error instanceof TypeError)) throw error;
  } finally {
    store.loading = false;
  }
  render();
}

// ---------------------------------------------------------------- what every view has

function render() {
  const { state, link } = page;
  const live = link.state === "live";
  document.body.classList.toggle("stale", !live && state !== null);
  const words = { live: "live", silent: "no answer", gone: "host gone", odd: "unreadable", lost: "disconnected", connecting: "connecting" };
  write($("link"), words[link.state] ?? link.state);
  $("link").dataset.state = link.state;
  banner(link);
  if (!state) return;
  document.title = `${oneLine(state.app, 60)} – hostkit`;
  write($("app"), oneLine(state.app, 60));
  facts(state);
  chipIn($("host-health"), HEALTH[state.status] ?? "none", state.status, plain(state.message, 500));
  if (document.hidden) return;
  if (page.name === null) renderOverview(state); else renderPlugin(state);
}

function chipIn(target, tone, word, title) {
  target.hidden = false;
  chip(target, tone, word, title);
}

function banner(link) {
  const last = link.answered ? ` Its last answer was at ${clock(link.answered)}; what is shown is from then.` : "";
  const why = link.why ? ` (${oneLine(link.why, 400)})` : "";
  const texts = {
    silent: `The host doesn't answer${why}.${last}`,
    gone: `The host can't be reached${why}.${last}`,
    odd: `The host answers, but not so that it can be shown${why}.${last}`,
    lost: `No connection to the dashboard${why}.${link.answered ? ` The host's last answer was at ${clock(link.answered)}.` : ""} Trying again.`,
  };
  const text = texts[link.state] ?? "";
  $("banner").hidden = !text;
  write($("banner"), text);
}

function facts(state) {
  const list = [["pid", state.pid], ["up", span((page.link.state === "live" ? now() : state.at) - state.started)], ["hostkit", state.version], ["Python", state.python]];
  pairs($("facts"), list.map(([name, value]) => [name, oneLine(value, 40)]));
}

// A list of terms whose elements stay while their texts change.
function pairs(target, list) {
  while (target.children.length > list.length) target.lastChild.remove();
  list.forEach(([term, text, kind = "", title = ""], index) => {
    const entry = target.children[index] ?? target.appendChild(make("div", "", make("dt"), make("dd")));
    write(entry.firstChild, term);
    write(entry.lastChild, text);
    if (entry.className !== kind) entry.className = kind;
    if (entry.title !== title) entry.title = title;
  });
}

const PLOTS = [
  { title: "Calls per second", format: rate, series: [{ key: "calls", name: "calls", filled: true }, { key: "errors", name: "errors", dashed: true }] },
  { title: "Latency", format: seconds, logarithmic: true, series: [{ key: "p50", name: "p50" }, { key: "p99", name: "p99", dashed: true }] },
];
const plots = {};

function makePlots(id) {
  plots[id] = PLOTS.map((options) => new Plot($(id).appendChild(make("figure")), options));
  const range = make("div", "segments range");
  range.setAttribute("role", "group");
  range.setAttribute("aria-label", "How far back the plots go");
  for (const [length, text] of [[120, "2 min"], [600, "10 min"]]) {
    const button = make("button", "", text);
    button.type = "button";
    button.dataset.range = length;
    button.addEventListener("click", () => { page.range = length; render(); });
    range.append(button);
  }
  plots[id].at(-1).head.append(range);
}

function renderPlots(id, name) {
  const store = page.stores.get(name);
  for (const button of $(id).querySelectorAll("[data-range]")) button.setAttribute("aria-pressed", String(Number(button.dataset.range) === page.range));
  if (store) for (const plot of plots[id]) plot.show(store, now(), page.range);
}

// ---------------------------------------------------------------- the overview

const COLUMNS = [
  { key: "name", head: "plugin", by: (plugin) => plugin.name, fill: nameCell },
  { key: "state", head: "state", by: (plugin) => standing(plugin)[1], fill: (cell, plugin) => chip(cell.firstChild ?? cell.appendChild(make("span")), ...standing(plugin).map((text) => oneLine(text, 300))) },
  { key: "place", head: "runs", by: place, fill: placeCell },
  { key: "spark", head: "last minute", fill: sparkCell },
  { key: "calls", head: "calls/s", number: true, show: rate },
  { key: "errors", head: "errors/s", number: true, show: rate, warn: (plugin) => plugin.errors > 0 },
  { key: "p50", head: "p50", number: true, show: seconds },
  { key: "p99", head: "p99", number: true, show: seconds },
  { key: "breaker", head: "breaker", by: (plugin) => plugin.breaker, fill: breakerCell },
  { key: "restarts", head: "restarts", number: true, show: count, warn: (plugin) => plugin.failed !== "" },
  { key: "memory", head: "memory", number: true, show: bytes },
  { key: "cpu", head: "CPU", number: true, show: percent },
];

function nameCell(cell, plugin) {
  if (!cell.firstChild) {
    const link = make("a", "", make("bdi"));
    link.href = address(plugin.name);
    cell.append(link, make("span", "version muted"));
  }
  write(cell.firstChild.firstChild, oneLine(plugin.name, 80));
  write(cell.lastChild, oneLine(plugin.version, 20));
  cell.title = oneLine(plugin.description, 300);
}

// A lone surrogate can't be written into an address.
const address = (name) => `#/plugin/${encodeURIComponent(name.toWellFormed ? name.toWellFormed() : name)}`;

function placeCell(cell, plugin) {
  write(cell, place(plugin));
  const title = plugin.moved ? `moved here: ${oneLine(plugin.moved, 300)}` : plugin.sandbox ? `sandbox ${oneLine(plugin.sandbox, 40)}` : "";
  cell.classList.toggle("muted", !plugin.isolation);
  if (cell.title !== title) cell.title = title;
}

function breakerCell(cell, plugin) {
  const target = cell.firstChild ?? cell.appendChild(make("span"));
  chip(target, BREAKERS[plugin.breaker] ?? "none", plugin.breaker);
  if (!plugin.isolation) write(target, "–");
}

function sparkCell(cell, plugin) {
  if (!cell.firstChild) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    for (const [key, value] of [["class", "spark"], ["viewBox", "0 0 80 18"], ["aria-hidden", "true"]]) svg.setAttribute(key, value);
    cell.append(svg);
  }
  spark(cell.firstChild, page.sparks.get(plugin.name) ?? []);
}

const rows = new Map();

function makeTable() {
  for (const { key, head, by, number } of COLUMNS) {
    const cell = make("th", number ? "n" : "");
    cell.scope = "col";
    cell.dataset.key = key;
    if (by || number) {
      const button = make("button", "", head);
      button.type = "button";
      button.addEventListener("click", () => {
        page.sort = { key, down: page.sort.key === key ? !page.sort.down : Boolean(number) };
        render();
      });
      cell.append(button);
    } else {
      cell.append(head);
    }
    $("plugins-table").tHead.rows[0].append(cell);
  }
}

function renderOverview(state) {
  pairs($("totals"), totals(state.totals));
  renderPlots("overview-plots", "");
  const wanted = $("filter").value.trim().toLowerCase();
  const shown = state.plugins.filter((plugin) => !wanted || [plugin.name, plugin.state, standing(plugin)[1], place(plugin), plugin.breaker].some((text) => text.toLowerCase().includes(wanted)));
  shown.sort(order);
  for (const cell of $("plugins-table").tHead.rows[0].cells) {
    const chosen = cell.dataset.key === page.sort.key;
    cell.ariaSort = chosen ? (page.sort.down ? "descending" : "ascending") : null;
  }
  const there = new Set(shown.map((plugin) => plugin.name));
  for (const [name, row] of rows) if (!there.has(name)) { row.remove(); rows.delete(name); }
  const body = $("plugins-table").tBodies[0];
  shown.forEach((plugin, index) => {
    const row = rows.get(plugin.name) ?? newRow(plugin.name);
    fillRow(row, plugin);
    if (body.rows[index] !== row) body.insertBefore(row, body.rows[index] ?? null);
  });
  write($("plugins-count"), `${state.totals.loaded} of ${state.totals.plugins} loaded${shown.length < state.plugins.length ? `, ${shown.length} shown` : ""}`);
  $("plugins-none").hidden = shown.length > 0;
  write($("plugins-none"), state.plugins.length ? "No plugin fits the filter." : "No plugin is installed for this application.");
  renderExporters(state.exporters);
}

function newRow(name) {
  const row = make("tr");
  row.setAttribute("role", "row");
  for (const { key, head, number } of COLUMNS) {
    const cell = make(key === "name" ? "th" : "td", `${number ? "n " : ""}c-${key}`);
    if (key === "name") cell.scope = "row";
    cell.setAttribute("role", key === "name" ? "rowheader" : "cell");
    cell.dataset.label = head;
    row.append(cell);
  }
  row.addEventListener("click", (event) => { if (!event.target.closest("a") && !getSelection().toString()) location.hash = row.querySelector("a").hash; });
  rows.set(name, row);
  return row;
}

function fillRow(row, plugin) {
  row.classList.toggle("idle", plugin.state === "not loaded" || plugin.state === "disabled");
  COLUMNS.forEach(({ key, fill, show, warn }, index) => {
    const cell = row.cells[index];
    if (fill) { fill(cell, plugin); return; }
    write(cell, show(plugin[key]));
    if (warn) cell.classList.toggle("warn", warn(plugin));
  });
}

function order(one, other) {
  const column = COLUMNS.find(({ key }) => key === page.sort.key);
  const value = column.by ?? ((plugin) => plugin[column.key] ?? -1);
  const [a, b] = [value(one), value(other)];
  const sign = a < b ? -1 : a > b ? 1 : 0;
  return (page.sort.down ? -sign : sign) || (one.name < other.name ? -1 : 1);
}

function totals(all) {
  return [
    ["calls/s", rate(all.calls)],
    ["errors/s", rate(all.errors), all.errors > 0 ? "warn" : ""],
    ["p50", seconds(all.p50)],
    ["p99", seconds(all.p99)],
    ["in flight", count(all.in_flight)],
    ["waiting", count(all.waiting)],
    ["workers", count(all.workers)],
    ["memory", bytes(all.memory), "", "The host's process and all workers"],
    ["CPU", percent(all.cpu), "", "Per cent of one CPU: the host's process and all workers"],
  ];
}

function renderExporters(exporters) {
  $("exporters").hidden = !exporters.length;
  const body = $("exporters").querySelector("tbody");
  while (body.rows.length > exporters.length) body.lastChild.remove();
  exporters.forEach((exporter, index) => {
    const row = body.rows[index] ?? body.appendChild(make("tr", "", make("th"), make("td", "n"), make("td", "n"), make("td", "n"), make("td")));
    [oneLine(exporter.name, 60), count(exporter.sent), count(exporter.dropped), count(exporter.waiting), oneLine(exporter.trouble || "–", 300)].forEach((text, column) => write(row.cells[column], text));
    row.cells[2].classList.toggle("warn", exporter.dropped > 0);
    row.cells[4].classList.toggle("warn", Boolean(exporter.trouble));
  });
}

const happened = { next: 0, entries: [] };

const askForEvents = single(async () => {
  const answer = await ask("/api/events", { after: happened.next });
  if (answer.next < happened.next) happened.entries = []; // another host
  happened.next = answer.next;
  happened.entries = [...happened.entries, ...answer.entries].slice(-200);
  renderEvents($("events"), happened.entries, true);
  renderEvents($("p-events"), happened.entries.filter(({ plugin }) => plugin === page.name), false);
});

const drawn = new Map();

// Whether something else is to be drawn there than was; what stays is not drawn again, for it may be selected.
function isNews(target, data) {
  const text = JSON.stringify(data) ?? "";
  if (drawn.get(target) === text) return false;
  drawn.set(target, text);
  return true;
}

function renderEvents(target, entries, named) {
  if (!isNews(target, entries)) return;
  const items = entries.slice().reverse().map(({ at, type, plugin, level, text }) => {
    const item = make("li", `level-${levelOf(level)}`, make("time", "", moment(at)), make("span", "kind", oneLine(type, 60)));
    if (named) item.append(make("span", "of", plugin ? pluginLink(plugin) : ""));
    item.append(make("span", "text", foreign(text, 600)));
    return item;
  });
  target.replaceChildren(...(items.length ? items : [make("li", "empty", "Nothing has happened yet.")]));
}

function pluginLink(name) {
  const link = make("a", "", foreign(name, 60));
  link.href = address(name);
  return link;
}

const LEVELS = { TRACE: 5, DEBUG: 10, INFO: 20, SUCCESS: 25, WARNING: 30, ERROR: 40, CRITICAL: 50 };
const levelNumber = (level) => (typeof level === "number" ? level : LEVELS[String(level).toUpperCase()] ?? 20);
const levelOf = (level) => { const number = levelNumber(level); return number >= 40 ? "error" : number >= 30 ? "warning" : number >= 20 ? "info" : "debug"; };
const levelName = (level) => (typeof level === "number" ? Object.keys(LEVELS).find((name) => LEVELS[name] === level) ?? String(level) : oneLine(level, 10));

// ---------------------------------------------------------------- one plugin

const current = () => page.state?.plugins.find((plugin) => plugin.name === page.name);

function renderPlugin(state) {
  const plugin = current();
  write($("p-name"), oneLine(page.name, 120));
  const usable = plugin !== undefined && page.link.state === "live" && !page.busy;
  for (const id of ["act-none", "act-process", "act-drain", "act-resume", "act-restart"]) $(id).disabled = !usable;
  if (!plugin) {
    write($("p-description"), "The host has no plugin of this name.");
    return;
  }
  write($("p-version"), oneLine(plugin.version, 40));
  write($("p-description"), oneLine(plugin.description, 500));
  renderChips(plugin);
  $("act-none").setAttribute("aria-pressed", String(plugin.isolation === "none"));
  $("act-process").setAttribute("aria-pressed", String(plugin.isolation === "process"));
  $("act-drain").hidden = plugin.state === "draining";
  $("act-drain").disabled ||= plugin.state !== "loaded";
  $("act-resume").hidden = plugin.state !== "draining";
  pairs($("p-totals"), [
    ["calls/s", rate(plugin.calls)],
    ["errors/s", rate(plugin.errors), plugin.errors > 0 ? "warn" : ""],
    ["p50", seconds(plugin.p50)],
    ["p99", seconds(plugin.p99)],
    ["in flight", count(plugin.in_flight)],
    ["waiting", count(plugin.waiting)],
    ["restarts", count(plugin.restarts)],
    ["memory", bytes(plugin.memory), "", "All workers; in-process it is the host's"],
    ["CPU", percent(plugin.cpu), "", "Per cent of one CPU, all workers"],
  ]);
  renderPlots("plugin-plots", page.name);
  renderWorkers(plugin);
  renderOutcomes(plugin.outcomes);
}

function renderChips(plugin) {
  const list = [
    [STATES[plugin.state] ?? "none", plugin.state, plugin.failed],
    [HEALTH[plugin.health.status] ?? "none", plugin.health.status === "unknown" ? "health not asked" : plugin.health.status, plugin.health.message],
    [BREAKERS[plugin.breaker] ?? "none", `breaker ${plugin.breaker}`, ""],
  ];
  if (plugin.isolation) list.push(["none", plugin.isolation === "none" ? "in the host's process" : `${place(plugin)}, sandbox ${plugin.sandbox || "off"}`, ""]);
  if (plugin.moved) list.push(["middling", "moved by itself", plugin.moved]);
  const target = $("p-chips");
  while (target.children.length > list.length) target.lastChild.remove();
  list.forEach(([tone, word, title], index) => chip(target.children[index] ?? target.appendChild(make("span")), tone, word, oneLine(title, 500)));
  const said = plugin.failed || (plugin.state === "loaded" ? plugin.health.message : "") || plugin.moved;
  $("p-note").hidden = !said;
  write($("p-note"), oneLine(said, 600));
}

function renderWorkers(plugin) {
  const body = $("p-workers").tBodies[0];
  $("p-workers").hidden = !plugin.workers.length;
  $("p-workers-none").hidden = plugin.workers.length > 0;
  write($("p-workers-none"), plugin.isolation === "none" ? "None: it runs in the host's process." : "None now.");
  while (body.rows.length > plugin.workers.length) body.lastChild.remove();
  plugin.workers.forEach((worker, index) => {
    const row = body.rows[index] ?? body.appendChild(make("tr", "", make("th"), make("td"), make("td", "n"), make("td", "n"), make("td", "n"), make("td", "n")));
    [String(worker.pid), oneLine(worker.state, 20), span(worker.age), bytes(worker.memory), seconds(worker.cpu), count(worker.threads)].forEach((text, column) => write(row.cells[column], text));
  });
}

function renderOutcomes(outcomes) {
  const list = Object.entries(outcomes).sort(([, one], [, other]) => other - one);
  const most = Math.max(1, ...list.map(([, number]) => number));
  const body = $("p-outcomes").tBodies[0];
  $("p-outcomes-none").hidden = list.length > 0;
  while (body.rows.length > list.length) body.lastChild.remove();
  list.forEach(([name, number], index) => {
    const row = body.rows[index] ?? body.appendChild(make("tr", "", make("th"), make("td", "", make("meter")), make("td", "n")));
    write(row.cells[0], oneLine(name, 60));
    const meter = row.cells[1].firstChild;
    Object.assign(meter, { max: most, value: number, className: name === "ok" ? "ok" : "bad" });
    meter.setAttribute("aria-hidden", "true");
    write(row.cells[2], count(number));
  });
}

const askForPlugin = single(async () => {
  const name = page.name;
  const answer = await ask("/api/plugin", { name });
  if (page.name !== name) return;
  renderErrors(answer.errors ?? []);
  const runs = answer.runs ?? {};
  const parts = { "p-config": answer.config, "p-manifest": answer.manifest, "p-granted": grantsOf(runs), "p-limits": limitsOf(runs) };
  for (const [id, part] of Object.entries(parts)) if (isNews($(id), part)) $(id).replaceChildren(tree(part));
});

function grantsOf({ granted = {}, not_granted: refused = [] }) {
  return refused.length ? { ...granted, "not granted": refused } : granted;
}

function limitsOf({ limits = {}, held_by: held = {}, warning }) {
  const shown = Object.entries(limits).map(([key, value]) => [key.replace(/_bytes$/, ""), key.endsWith("_bytes") ? bytes(value) : value]);
  return { ...Object.fromEntries(shown), ...(Object.keys(held).length ? { "held by": held } : {}), ...(warning ? { warning } : {}) };
}

let newest = [];

function renderErrors(errors) {
  newest = errors;
  const target = $("p-errors");
  if (target.querySelector("details[open]")) {
    // Nobody's reading is disturbed, however fast errors come.
    const latest = target.firstChild.dataset.at;
    write($("p-errors-count"), latest === String(errors.at(-1)?.at) ? "" : "there are newer ones, shown when the open one is closed");
    return;
  }
  write($("p-errors-count"), errors.length ? `the last ${errors.length}` : "");
  if (!isNews(target, errors)) return;
  const items = errors.slice().reverse().map((error) => {
    const summary = make("summary", "", make("time", "", moment(error.at)), make("span", "kind", oneLine(error.type, 80) + (error.times > 1 ? ` × ${error.times.toLocaleString("en")}` : "")), make("span", "text", foreign(error.message, 300)));
    const item = make("details", "", summary);
    item.dataset.at = error.at;
    item.addEventListener("toggle", () => { if (!item.open && item.isConnected) renderErrors(newest); });
    const about = make("dl", "about");
    pairs(about, [["request", oneLine(error.request_id, 100) || "–"], ["phase", oneLine(error.phase, 40) || "–"], ...(error.remote_type ? [["raised", oneLine(error.remote_type, 100)]] : [])]);
    item.append(about, make("pre", "message", plain(error.message, 4000)));
    if (error.remote_traceback) item.append(make("h3", "", "In the plugin"), make("pre", "traceback", plain(error.remote_traceback, 20000)));
    if (error.stderr_tail) item.append(make("h3", "", "Last words on stderr"), make("pre", "", plain(error.stderr_tail, 20000)));
    return item;
  });
  $("p-errors").replaceChildren(...(items.length ? items : [make("p", "empty", "None that the host remembers.")]));
}

const HIDDEN = /^[*•]{3,}$/;

// JSON as nested lists of terms.
function tree(value, depth = 0) {
  if (value === null || value === undefined) return make("span", "muted", "–");
  if (typeof value !== "object") return make("span", HIDDEN.test(String(value)) ? "muted hidden-value" : typeof value, plain(value, 2000));
  const entries = Array.isArray(value) ? value.map((entry) => ["", entry]) : Object.entries(value);
  if (!entries.length) return make("span", "muted", "none");
  if (depth > 8) return make("span", "muted", "…");
  if (Array.isArray(value) && value.every((entry) => entry === null || typeof entry !== "object")) return make("span", "", plain(value.join(", "), 2000));
  const list = make("dl");
  for (const [key, entry] of entries.slice(0, 500)) {
    const deep = entry !== null && typeof entry === "object" && Object.keys(entry).length > 0 && !(Array.isArray(entry) && entry.every((one) => one === null || typeof one !== "object"));
    list.append(make("div", deep ? "deep" : "", make("dt", "", key ? foreign(key, 100) : "–"), make("dd", "", tree(entry, depth + 1))));
  }
  return list;
}

// ---------------------------------------------------------------- its log

const log = { next: 0, dropped: 0, name: null };

const askForLog = single(async () => {
  const name = page.name;
  const answer = await ask("/api/log", { name, after: log.next });
  if (page.name !== name) return;
  if (log.name !== name || answer.next < log.next) { $("p-log").replaceChildren(); log.dropped = 0; }
  const first = log.name !== name;
  Object.assign(log, { name, next: answer.next, dropped: first ? 0 : log.dropped + (answer.dropped ?? 0) });
  write($("p-log-dropped"), log.dropped ? `${count(log.dropped)} lines came too fast to be shown` : "");
  const target = $("p-log");
  const lines = answer.entries;
  for (const line of lines) target.append(logLine(line));
  while (target.children.length > MOST_LINES) target.firstChild.remove();
  if (!target.firstChild) target.append(make("p", "empty", "No line yet."));
  else if (lines.length) target.querySelector(".empty")?.remove();
  if (lines.length && $("p-log-follow").checked) target.scrollTop = target.scrollHeight;
});

function logLine({ at, level, text, request_id, source }) {
  const line = make("div", `entry level-${levelOf(level)}`, make("time", "", clock(at)), make("span", "kind", levelName(level).toLowerCase()));
  // A plugin's own loggers have long names; hostkit's lines about it have none.
  const from = source === "stdout" || source === "stderr" ? source : source ? "plugin" : "host";
  line.append(make("span", "of", from), make("span", "text", foreign(text, 4000)));
  line.title = [from === "plugin" && `logger ${oneLine(source, 100)}`, request_id && `request ${oneLine(request_id, 100)}`].filter(Boolean).join(", ");
  line.dataset.level = levelNumber(level);
  sieve(line);
  return line;
}

function sieve(line) {
  const wanted = $("p-log-filter").value.toLowerCase();
  line.hidden = Number(line.dataset.level) < Number($("p-log-level").value) || !line.textContent.toLowerCase().includes(wanted);
}

// ---------------------------------------------------------------- actions

const ACTIONS = {
  none: { verb: "isolate", place: "none", title: "Run it in the host's process?", button: "Run in-process", text: "Calls go on while it moves. A fault of the plugin can then end the host, and no limit holds it." },
  process: { verb: "isolate", place: "process", title: "Run it in a worker process?", button: "Run in a worker", text: "Calls go on while it moves. Each call then crosses to another process." },
  drain: { verb: "drain", title: "Drain it?", button: "Drain", text: "Calls in flight end; new ones are refused with Draining until it is resumed." },
  resume: { verb: "resume", title: "Resume it?", button: "Resume", text: "It is loaded anew and takes calls again." },
  restart: { verb: "restart", title: "Restart it?", button: "Restart", text: "It is loaded anew and takes over when it is ready; calls in flight end where they are." },
};

async function perform(key) {
  const { title, button, text, ...action } = ACTIONS[key];
  const name = page.name;
  if (!(await confirmed(title, `${oneLine(name, 80)}: ${text}`, button))) return;
  page.busy = true;
  say(`${button}: under way …`, "");
  render();
  try {
    const { answer } = await act({ ...action, name });
    say(`${button}: done at ${clock(now())}.${typeof answer === "string" ? ` ${plain(answer, 300)}` : ""}`, "good");
  } catch (error) {
    say(error instanceof Refused ? `${button}: ${error.type ? `${oneLine(error.type, 60)}: ` : ""}${plain(error.message, 800)}` : `${button}: no answer from the dashboard.`, "bad");
  } finally {
    page.busy = false;
    render();
  }
}

function say(text, tone) {
  $("act-answer").className = `answer ${tone}`;
  write($("act-answer"), text);
}

function confirmed(title, text, button) {
  write($("confirm-title"), title);
  write($("confirm-text"), text);
  write($("confirm-yes"), button);
  const dialog = $("confirm");
  return new Promise((resolve) => {
    const end = (answer) => () => { dialog.close(answer); };
    $("confirm-no").onclick = end("no");
    $("confirm-yes").onclick = end("yes");
    dialog.returnValue = "no";
    dialog.onclose = () => resolve(dialog.returnValue === "yes");
    dialog.showModal();
    $("confirm-no").focus();
  });
}

// ---------------------------------------------------------------- where we are

function go() {
  const found = /^#\/plugin\/(.+)$/s.exec(location.hash);
  let name = null;
  try { name = found ? decodeURIComponent(found[1]) : null; } catch { name = null; }
  page.name = name;
  $("overview").hidden = name !== null;
  $("plugin").hidden = name === null;
  log.next = 0;
  log.name = null;
  say("", "");
  $("p-log").replaceChildren();
  for (const id of ["p-events", "p-errors", "p-config", "p-manifest", "p-granted", "p-limits"]) $(id).replaceChildren();
  drawn.clear();
  for (const kept of page.stores.keys()) if (kept !== "" && kept !== name) page.stores.delete(kept);
  load(name ?? "");
  scrollTo(0, 0);
  render();
  if (name !== null) {
    for (const step of [askForPlugin, askForLog, askForEvents]) step().catch(() => {});
  }
}

function askForToken(why) {
  $("overview").hidden = $("plugin").hidden = true;
  $("gate").hidden = false;
  page.link = { state: "locked" };
  $("link").dataset.state = "locked";
  write($("link"), "locked");
  if (why) write($("gate-why"), `The dashboard says: ${plain(why, 200)}. The right one is in the address that hostkit dashboard printed, after #token=.`);
  $("gate-token").focus();
}

function begin() {
  $("gate").hidden = true;
  go();
  watch(heard, lost);
}

const THEMES = ["auto", "light", "dark"];

function theme(word) {
  document.documentElement.dataset.theme = word;
  write($("theme"), `◐ ${word}`);
  $("theme").setAttribute("aria-label", `Colours: ${word === "auto" ? "as the system has them" : word}; change them`);
  try { localStorage.setItem("hostkit-theme", word); } catch { /* it lasts as long as the page, then */ }
}

function start() {
  let kept = "auto";
  try { kept = localStorage.getItem("hostkit-theme") ?? "auto"; } catch { /* not kept */ }
  theme(THEMES.includes(kept) ? kept : "auto");
  $("theme").addEventListener("click", () => theme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % 3]));
  makeTable();
  for (const id of ["overview-plots", "plugin-plots"]) makePlots(id);
  for (const key of Object.keys(ACTIONS)) $(`act-${key}`).addEventListener("click", () => perform(key));
  $("filter").addEventListener("input", render);
  const again = () => { for (const line of $("p-log").querySelectorAll(".entry")) sieve(line); };
  $("p-log-filter").addEventListener("input", again);
  $("p-log-level").addEventListener("change", again);
  $("p-log").addEventListener("wheel", ({ deltaY }) => { if (deltaY < 0) $("p-log-follow").checked = false; }, { passive: true });
  $("p-log-follow").addEventListener("change", () => { if ($("p-log-follow").checked) $("p-log").scrollTop = $("p-log").scrollHeight; });
  $("gate-form").addEventListener("submit", (event) => {
    event.preventDefault();
    setToken($("gate-token").value);
    $("gate-token").value = "";
    write($("gate-why"), "Asking …");
    begin();
  });
  addEventListener("hashchange", () => { if (location.hash.startsWith("#token=")) location.reload(); else go(); });
  addEventListener("visibilitychange", render);
  addEventListener("keydown", (event) => {
    if (event.key === "/" && page.name === null && !event.target.closest("input, select, textarea") && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      $("filter").focus();
    }
  });
  const reachable = () => page.link.state === "live";
  every(2000, reachable, askForEvents);
  every(2000, () => reachable() && page.name !== null, askForPlugin);
  every(1000, () => reachable() && page.name !== null, askForLog);
  setInterval(() => { if (page.link.state !== "live") render(); }, 1000);
  if (takeToken()) begin(); else askForToken("");
}

start();
