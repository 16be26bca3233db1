// The page of `maskdet explore`: filters, groups, faces, whole images and labels.
"use strict";

const ORDERS = {stored: "as stored", unsure: "least sure", sure_mask: "surest mask", sure_bare: "surest no mask", random: "at random", latest: "latest", small: "smallest"};
const PAGE = 60;

let faces = [];         // the faces shown
let total = 0;
let shown = -1;         // place among them of the one in the dialog
let turn = 0;           // of the latest question: an answer to an earlier one is dropped

// The address holds the whole state, so that a reload and the back button give the same view.
function go(change, {keepOffset = false} = {}) {
  change(asked);
  if (!keepOffset) asked.delete("offset");
  history.pushState(null, "", `?${asked}`);
  show();
}

function set(name, value) {
  go((state) => value === "" ? state.delete(name) : state.set(name, value));
}

async function show() {
  const mine = ++turn;
  byId("error").hidden = true;
  fillForm();
  document.body.setAttribute("aria-busy", "true");
  const parts = [["/api/view", showView], ["/api/histogram", showHistogram], ["/api/faces", showFaces]];
  if (start.has_tracks) parts.push(["/api/tracks", showTracks]);
  const waiting = parts.map(async ([path, draw]) => {
    const found = await answer(path, asked);
    if (mine === turn) draw(found);
  });
  try {
    await Promise.all(waiting);
  } catch (error) {
    if (mine === turn) fail(error);
  }
  if (mine === turn) document.body.removeAttribute("aria-busy");
}

function fillForm() {
  for (const name of ["since", "until"]) byId("filters").elements[name].value = asked.get(name) || "";
  for (const name of ["from", "to"]) {
    const given = asked.get(name);
    byId("filters").elements[name].value = given === null ? "" : String(Number((100 * given).toFixed(6)));
  }
  const chosen = asked.getAll("label");
  for (const box of byId("labels").querySelectorAll("input")) box.checked = chosen.includes(box.value);
  byId("by").value = asked.get("by") || "";
  byId("order").value = asked.get("order") || "stored";
  const chips = [];
  for (const [name, value] of asked) {
    const [kind, ...rest] = name.split(".");
    if (kind !== "key" && kind !== "none") continue;
    const text = `${rest.join(".")}: ${kind === "none" ? MISSING : value}`;
    chips.push(element("button", {type: "button", title: "take away", onclick: () => go((state) => state.delete(name, value))}, text));
  }
  byId("chips").replaceChildren(...chips);
  for (const span of document.querySelectorAll(".exports")) {
    span.replaceChildren(...["csv", "xlsx", "parquet"].map((kind) => element("a", {href: `/export/${span.dataset.what}.${kind}?${asked}`, download: ""}, kind.toUpperCase())));
  }
}

function showView({total: all, bars, more}) {
  const tile = (value, words, name) => element("div", {}, element("b", {"data-of": name}, value), element("span", {}, words));
  const first = element("div", {}, element("b", {class: "big", "data-of": "share"}, percent(all.share)), element("span", {}, `of ${thousands(all.labelled)} labelled faces ${verb()}`));
  const read = all.images - all.failed;
  byId("rate").replaceChildren(
    first,
    tile(range(all.low, all.high) || "—", `${Math.round(100 * start.confidence)}% interval (${all.method})`, "interval"),
    tile(thousands(all.faces), "faces", "faces"),
    tile(thousands(all.labels.uncertain), "uncertain", "uncertain"),
    tile(thousands(all.images), start.pictures, "images"),
    tile(`${thousands(all.no_face)} (${percent(read ? all.no_face / read : null)})`, "without a face", "no_face"),
    tile(thousands(all.failed), "failed", "failed"),
  );
  const rows = bars.map(barOf);
  if (more) rows.push(element("p", {class: "soft small"}, `and ${thousands(more)} more; the export has all that are shown`));
  byId("bars").replaceChildren(...(rows.length ? rows : [element("p", {class: "soft"}, "Nothing to show.")]));
}

function barOf(bar) {
  const shape = drawn("svg", {"aria-hidden": "true"});
  let left = 0;
  for (const label of Object.keys(bar.labels)) {
    const width = bar.faces ? 100 * bar.labels[label] / bar.faces : 0;
    if (width) shape.append(drawn("rect", {class: `fill-${label}`, x: `${left}%`, width: `${width}%`, height: "100%"}, drawn("title", {}, `${thousands(bar.labels[label])} ${WORDS[label]}`)));
    left += width;
  }
  const rate = element("span", {class: "rate"}, percent(bar.share), " ", element("small", {}, `${range(bar.low, bar.high)} · ${thousands(bar.faces)}`));
  const name = named(bar.value);
  return element("button", {type: "button", class: "bar", title: name, "data-value": name, onclick: () => keepAlone(bar.value)}, element("span", {class: "name"}, name), shape, rate);
}

function keepAlone(value) {
  const by = asked.get("by");
  if (by === "day") go((state) => { state.set("since", value); state.set("until", value); });
  else if (by === "week") {
    const last = new Date(`${value}T00:00:00Z`);
    last.setUTCDate(last.getUTCDate() + 6);
    go((state) => { state.set("since", value); state.set("until", last.toISOString().slice(0, 10)); });
  } else if (start.keys.some((key) => key.name === by)) choose(by, value);
}

function choose(key, value) {
  go((state) => {
    state.delete(`key.${key}`);
    state.delete(`none.${key}`);
    state.append(value === null ? `none.${key}` : `key.${key}`, value === null ? "" : value);
  });
}

function showHistogram({bins}) {
  const labels = Object.keys(bins);
  const count = bins[labels[0]].length;
  const sums = [...Array(count).keys()].map((bin) => labels.reduce((sum, label) => sum + bins[label][bin], 0));
  const largest = Math.max(1, ...sums);
  const from = Number(asked.get("from") || 0), to = Number(asked.get("to") || 1);
  byId("histogram").replaceChildren(...sums.map((sum, bin) => {
    const shape = drawn("svg", {"aria-hidden": "true"});
    let top = 100;
    for (const label of labels) {
      const height = 100 * bins[label][bin] / largest;
      top -= height;
      if (height) shape.append(drawn("rect", {class: `fill-${label}`, x: "8%", width: "84%", y: `${top}%`, height: `${height}%`}));
    }
    const low = bin / count, high = (bin + 1) / count, pressed = from === low && to === high;
    const words = `${Math.round(100 * low)} to ${Math.round(100 * high)}%: ${thousands(sum)} faces`;
    const pick = () => go((state) => pressed ? (state.delete("from"), state.delete("to")) : (state.set("from", low), state.set("to", high)));
    return element("button", {type: "button", title: words, "aria-label": words, "aria-pressed": String(pressed), "data-faces": sum, onclick: pick}, shape);
  }));
  if (!byId("histogram").nextElementSibling) byId("histogram").after(element("p", {class: "scale"}, element("span", {}, "0% surely none"), element("span", {}, "surely a mask 100%")));
}

function showFaces(found) {
  faces = found.faces;
  total = found.total;
  const kind = asked.getAll("label").includes("no_face") ? `${start.pictures} without a face` : "faces";
  byId("faces-about").textContent = `${thousands(total)} ${kind}, by all filters.`;
  showWhere("", found.offset, faces.length, total);
  byId("faces").replaceChildren(...faces.map(tileOf));
}

function tileOf(face, number) {
  const label = face.label || "no_face";
  return tile(pictureOf(face.id), [face.label ? chance(face) : WORDS.no_face, place(face), face.captured_at], {
    class: `face ${label}${face.corrected ? " corrected" : ""}`,
    "aria-label": `${WORDS[label]}, ${place(face)}, ${face.captured_at}`,
    "data-id": face.id,
    onclick: () => open(number),
  });
}

function open(number) {
  const face = faces[number];
  if (!face) return;
  shown = number;
  const image = byId("image");
  byId("box").replaceChildren();
  byId("said").textContent = "";
  image.alt = "whole image";
  image.onload = () => drawBox(face);
  image.onerror = () => missing(image.cloneNode()).then(() => { byId("said").textContent = "The image is gone, changed or unreadable."; });
  image.src = `/picture/image/${face.id}`;
  byId("caption").textContent = face.label ? `${chance(face)}${face.corrected ? ` (people; the model: ${WORDS[face.model_label]})` : ""}; probability of any mask: ${percent(face.worn)}` : WORDS.no_face;
  const known = {...facts({...face.keys, ...face.carried}), time: face.captured_at || "—", image: face.uri, size: `${face.size[0]} × ${face.size[1]} px`};
  if (face.time_us !== null) known["time in video"] = clock(face.time_us);
  if (face.box) known.face = `${Math.round(face.box[2])} × ${Math.round(face.box[3])} px`;
  showFacts("facts", known);
  showChoices(face);
  byId("previous-face").disabled = number === 0;
  byId("next-face").disabled = number === faces.length - 1;
  if (!byId("whole").open) byId("whole").showModal();
}

// What people may say of a face, by the key that says it, as in `maskdet audit label`; 0 takes it back.
const CHOICES = {m: "mask", i: "incorrect", n: "no_mask", x: "not_a_face", 0: null};

// Corrections name a face by its image, which all frames of a video share.
const correctable = (face) => face.label && face.time_us === null;

function showChoices(face) {
  const buttons = Object.entries(CHOICES).sort(([one], [other]) => (one === "0") - (other === "0")).filter(([, label]) => correctable(face) && (start.tells_incorrect || label !== "incorrect") && (label !== null || face.corrected));
  byId("relabel").replaceChildren(...buttons.map(([key, label]) => {
    const words = label === null ? `the model's: ${WORDS[face.model_label]}` : WORDS[label];
    return element("button", {type: "button", "data-label": label || "", "aria-pressed": String(label === face.label), onclick: () => relabel(label)}, element("kbd", {}, key), ` ${words}`);
  }));
}

async function relabel(label) {
  const number = byId("whole").open ? shown : [...byId("faces").children].indexOf(document.activeElement);
  const face = faces[number];
  if (!face || !correctable(face)) return;
  try {
    const reply = await fetch("/api/relabel", {method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify({id: face.id, label})});
    if (!reply.ok) throw new Error((reply.headers.get("content-type") || "").includes("json") ? (await reply.json()).error : await reply.text());
    Object.assign(face, await reply.json());
    const tile = byId("faces").children[number], focused = document.activeElement === tile;
    const made = tileOf(face, number);
    tile.replaceWith(made);
    if (focused) made.focus();
    if (byId("whole").open) open(number);
    byId("said").textContent = face.corrected ? `Saved: ${WORDS[face.label]}.` : "The model's label counts again.";
    showView(await answer("/api/view", asked));
  } catch (error) {
    fail(error);
  }
}

function drawBox(face) {
  const image = byId("image"), box = byId("box"), room = byId("frame").clientWidth;
  const scale = Math.min(room / image.naturalWidth, (innerWidth > 760 ? 0.86 : 0.5) * innerHeight / image.naturalHeight);
  image.style.width = `${image.naturalWidth * scale}px`;
  image.style.height = `${image.naturalHeight * scale}px`;
  const frame = byId("frame").getBoundingClientRect(), seen = image.getBoundingClientRect();
  box.style.left = `${seen.left - frame.left}px`;
  box.style.top = `${seen.top - frame.top}px`;
  box.style.width = `${seen.width}px`;
  box.style.height = `${seen.height}px`;
  if (!face.box) return;
  const [left, top, width, height] = face.box, [across, down] = face.size;
  const sides = {x: 100 * left / across, y: 100 * top / down, width: 100 * width / across, height: 100 * height / down};
  box.replaceChildren(drawn("rect", {...sides, class: "halo"}), drawn("rect", sides));
}

function close() {
  byId("whole").close();
  byId("faces").children[shown]?.focus();
}

function turnPage(step) {
  const offset = Number(asked.get("offset") || 0) + step * PAGE;
  if (offset >= 0 && offset < total) go((state) => offset ? state.set("offset", offset) : state.delete("offset"), {keepOffset: true});
}

function move(step) {
  if (byId("whole").open) {
    if (faces[shown + step]) open(shown + step);
    return;
  }
  const tiles = [...byId("faces").children], at = tiles.indexOf(document.activeElement);
  tiles[Math.min(tiles.length - 1, Math.max(0, at + step))]?.focus();
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("film").open || event.target.matches("input, select, textarea")) return;
  const step = event.shiftKey ? turnPage : move;
  const keys = {ArrowRight: () => step(1), ArrowLeft: () => step(-1)};
  const found = event.key in CHOICES && start ? () => relabel(CHOICES[event.key]) : keys[event.key];
  if (found) {
    event.preventDefault();
    found();
  }
}

function build() {
  document.title = `${start.output} – maskdet explore`;
  byId("output").textContent = start.output;
  byId("about").textContent = [`run ${start.run}`, start.model, start.days[0] ? `${start.days[0]} to ${start.days[1]} (${start.timezone})` : "no capture times"].join(" · ");
  byId("keys").replaceChildren(...start.keys.map((key) => {
    const options = key.values.map((value, number) => element("option", {value: number}, named(value)));
    const select = element("select", {"data-key": key.name}, element("option", {value: ""}, `any of ${thousands(key.total)}`), ...options);
    select.addEventListener("change", () => {
      if (select.value === "") return;
      const value = key.values[Number(select.value)];
      const [name, text] = value === null ? [`none.${key.name}`, ""] : [`key.${key.name}`, value];
      select.value = "";
      if (!asked.has(name, text)) go((state) => state.append(name, text));
    });
    return element("label", {}, key.name, select);
  }));
  byId("labels").replaceChildren(...[...start.labels, "no_face"].map((label) => {
    const box = element("input", {type: "checkbox", value: label});
    box.addEventListener("change", () => go((state) => box.checked ? state.append("label", label) : state.delete("label", label)));
    return element("label", {}, box, ` ${WORDS[label]}`);
  }));
  const groups = [...start.keys.map((key) => key.name), ...start.times];
  byId("by").replaceChildren(...groups.map((name) => element("option", {value: name}, name)));
  byId("order").replaceChildren(...Object.entries(ORDERS).map(([name, words]) => element("option", {value: name}, words)));
  for (const name of ["since", "until"]) {
    const input = byId("filters").elements[name];
    [input.min, input.max] = [start.days[0] || "", start.days[1] || ""];
    input.addEventListener("change", () => set(name, input.value));
  }
  for (const name of ["from", "to"]) {
    const input = byId("filters").elements[name];
    input.addEventListener("change", () => set(name, input.value === "" ? "" : String(Number(input.value) / 100)));
  }
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("clear").addEventListener("click", () => go((state) => { for (const name of [...state.keys()]) if (name !== "by" && name !== "order") state.delete(name); }));
  byId("by").addEventListener("change", (event) => set("by", event.target.value));
  byId("order").addEventListener("change", (event) => set("order", event.target.value));
  byId("before").addEventListener("click", () => turnPage(-1));
  byId("next").addEventListener("click", () => turnPage(1));
  byId("previous-face").addEventListener("click", () => move(-1));
  byId("next-face").addEventListener("click", () => move(1));
  byId("close").addEventListener("click", close);
  byId("whole").addEventListener("close", () => byId("faces").children[shown]?.focus());
  document.addEventListener("keydown", pressed);
  window.addEventListener("resize", () => { if (byId("whole").open) drawBox(faces[shown]); });
  window.addEventListener("popstate", () => { read(); show(); });
}

function read() {
  asked = new URLSearchParams(location.search);
  if (!asked.has("by")) asked.set("by", start.keys[0]?.name || start.times[0] || "");
  if (!asked.get("by")) asked.delete("by");
}

answer("/api/start", "").then((found) => {
  start = found;
  build();
  buildTracks();
  read();
  return show();
}).catch(fail);
