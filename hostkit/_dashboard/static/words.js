// Numbers and foreign texts for people. Every text of a plugin goes through `plain` and is set as text, never as markup.

// Control characters, what turns the direction of writing or breaks lines unseen, and lone surrogates: shown as what they are.
const UNSAFE = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

export function plain(value, most = 2000) {
  const text = String(value ?? "");
  const cut = text.length > most ? `${text.slice(0, most)}… (${text.length} characters)` : text;
  return cut.replace(UNSAFE, (letter) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

// The same on one line.
export function oneLine(value, most = 300) {
  return plain(value, most).replace(/\n/g, "⏎").replace(/\t/g, " ");
}

const none = "–";
const known = (format) => (number) => (number === null || number === undefined ? none : format(number));

export const count = known((number) => Math.round(number).toLocaleString("en"));

// As many digits in each cell of a column as in the next one.
export const rate = known((number) => {
  if (number === 0) return "0";
  if (number >= 1e6) return `${(number / 1e6).toFixed(1)}M`;
  if (number >= 10000) return `${(number / 1000).toFixed(1)}k`;
  return number >= 100 ? Math.round(number).toLocaleString("en") : number.toFixed(number < 1 ? 2 : 1);
});

export const seconds = known((number) => {
  if (number === 0) return "0";
  const [unit, factor] = number < 1e-3 ? ["µs", 1e6] : number < 1 ? ["ms", 1e3] : ["s", 1];
  const scaled = number * factor;
  return `${scaled >= 100 ? Math.round(scaled) : scaled.toFixed(scaled >= 10 ? 1 : 2)} ${unit}`;
});

export const bytes = known((number) => {
  const [unit, size] = number >= 2 ** 30 ? ["GB", 2 ** 30] : number >= 2 ** 20 ? ["MB", 2 ** 20] : ["kB", 2 ** 10];
  const scaled = number / size;
  return `${scaled >= 100 ? Math.round(scaled) : scaled.toFixed(1)} ${unit}`;
});

export const percent = known((number) => `${number >= 10 ? Math.round(number) : number.toFixed(1)} %`);

export const span = known((number) => {
  const whole = Math.max(0, Math.floor(number));
  const [days, hours, minutes] = [Math.floor(whole / 86400), Math.floor((whole % 86400) / 3600), Math.floor((whole % 3600) / 60)];
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${String(minutes).padStart(2, "0")} min`;
  return minutes ? `${minutes} min ${String(whole % 60).padStart(2, "0")} s` : `${whole} s`;
});

export const clock = known((at) => new Date(at * 1000).toLocaleTimeString([], { hour12: false }));
export const moment = known((at) => {
  const day = new Date(at * 1000).toLocaleDateString("sv");
  return day === new Date().toLocaleDateString("sv") ? clock(at) : `${day.slice(5)} ${clock(at)}`;
});
