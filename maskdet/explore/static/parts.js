// What the parts of the page of `maskdet explore` share: elements, words, numbers, tiles of faces.
// Texts from the tables are only ever set as text: nothing here reads them as markup.
"use strict";

const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const WORDS = {mask: "mask", incorrect: "worn incorrectly", no_mask: "no mask", uncertain: "uncertain", no_face: "no face found", not_a_face: "not a face"};
const MISSING = "(none)";

let start = null;       // what there is to choose from
let asked = null;       // the page's state, as parameters of the address

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

function drawn(tag, attributes, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const thousands = (number) => number.toLocaleString("en-US");

function percent(share, decimals = 1) {
  if (share === null) return "—";
  const least = 10 ** -decimals, text = (100 * share).toFixed(decimals);
  if (share > 0 && Number(text) === 0) return `<${least}%`;
  if (share < 1 && Number(text) === 100) return `>${100 - least}%`;
  return `${text}%`;
}

function clock(time_us) {
  const tenths = Math.floor(time_us / 1e5), seconds = Math.floor(tenths / 10);
  const parts = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  const text = parts[0] ? `${parts[0]}:${String(parts[1]).padStart(2, "0")}` : String(parts[1]);
  return `${text}:${String(parts[2]).padStart(2, "0")}.${tenths % 10}`;
}

const range = (low, high) => low === null ? "" : `${percent(low)} to ${percent(high)}`;
const named = (value) => value === null ? MISSING : String(value);
const place = (face) => Object.values(face.keys).map(named).join(" · ");
// A label's own probability; beside one that has none, such as "uncertain", that of a mask, which is then said.
function chance(one) {
  const own = {mask: one.worn - (one.incorrect ?? 0), incorrect: one.incorrect, no_mask: 1 - one.worn}[one.label];
  const shown = own ?? one.worn;
  return `${WORDS[one.label]}${own == null ? ", mask" : ""} ${Math.round(100 * shown)}%`;
}
const verb = () => start.tells_incorrect ? "wore a mask correctly" : "wore a mask";

async function answer(path, parameters) {
  const reply = await fetch(`${path}?${parameters}`, {headers: {accept: "application/json"}});
  if (reply.status === 401) throw new Error("The server was started anew: open the link that it printed.");
  const found = await reply.json();
  if (!reply.ok) throw new Error(found.error);
  return found;
}

function fail(error) {
  byId("error").textContent = error.message;
  byId("error").hidden = false;
}

const pictureOf = (id) => element("img", {class: "picture", src: `/picture/face/${id}`, alt: "", loading: "lazy", onerror: (event) => missing(event.target)});

// Why there is no picture is asked for only then.
async function missing(picture) {
  const reply = await fetch(picture.src);
  picture.replaceWith(element("div", {class: "picture"}, reply.ok ? "no picture" : (await reply.text()).trim()));
}

// A picture with words below, the first of which says the label.
function tile(picture, words, attributes) {
  const [label, ...rest] = words;
  return element("button", {type: "button", ...attributes}, picture, element("span", {class: "label"}, label), ...rest.map((text) => text instanceof Node ? text : element("span", {}, text)));
}

const facts = (values) => Object.fromEntries(Object.entries(values).map(([name, value]) => [name, named(value)]));

function showFacts(id, found) {
  byId(id).replaceChildren(...Object.entries(found).flatMap(([name, text]) => [element("dt", {}, name), element("dd", {}, text)]));
}

// Which of all are shown, and whether there are more on either side.
function showWhere(prefix, first, shown, all) {
  byId(`${prefix}where`).textContent = shown ? `${thousands(first + 1)} to ${thousands(first + shown)} of ${thousands(all)}` : "none";
  byId(`${prefix}before`).disabled = first === 0;
  byId(`${prefix}next`).disabled = first + shown >= all;
}
