// People in videos, on the page of `maskdet explore`: who they are, when, and the video from then on.
"use strict";

const DID = {put_on: "put a mask on", taken_off: "took it off", slipped: "it slipped", put_right: "put it right"};
const TRACKS_PAGE = 24;

let people = [];        // the tracks shown
let firstPerson = 0;    // place of the first one among all
let peopleTotal = 0;
let person = -1;        // place among those shown of the one in the dialog
let plays = false;      // whether the browser plays its video

const some = (number, one, more) => `${thousands(number)} ${number === 1 ? one : more}`;

function showTracks(found) {
  people = found.tracks;
  peopleTotal = found.total;
  firstPerson = found.first;
  const interval = range(found.low, found.high);
  const times = Object.entries(found.changes).filter(([, number]) => number).map(([kind, number]) => `${DID[kind]} ${thousands(number)}×`);
  byId("people-rate").replaceChildren(element("b", {"data-of": "people-share"}, percent(found.share)), `of ${some(found.labelled, "person", "people")} with a label ${verb()}${interval ? ` (${interval})` : ""}`);
  byId("people-about").textContent = [
    `${some(found.counted, "person", "people")} in ${some(found.videos, "video", "videos")}, each counted once a video`,
    `seen in ${found.min_frames} frames or more`,
    ...times,
    `${thousands(found.total)} listed, by all filters`,
  ].join(" · ");
  showWhere("tracks-", firstPerson, people.length, peopleTotal);
  byId("tracks").replaceChildren(...people.map(personOf));
}

function personOf(track, number) {
  const when = `${clock(track.first_us)} to ${clock(track.last_us)}`;
  const words = [chance(track), place(track) || fileName(track.uri), when, some(track.frames, "frame", "frames")];
  if (track.changes.length) words.push(element("span", {class: "changes"}, track.changes.map((change) => DID[change.kind]).join(", ")));
  return tile(track.face ? pictureOf(track.face) : element("div", {class: "picture"}, "no picture"), words, {
    class: `face ${track.label}`,
    "aria-label": `${WORDS[track.label]}, ${place(track)}, ${when}`,
    "data-id": track.id,
    onclick: () => openPerson(number),
  });
}

const fileName = (uri) => uri.slice(uri.lastIndexOf("/") + 1);

async function turnTracks(step) {
  const first = firstPerson + step * TRACKS_PAGE;
  if (first < 0 || first >= peopleTotal) return;
  try {
    showTracks(await answer("/api/tracks", `${asked}&first=${first}`));
  } catch (error) {
    fail(error);
  }
}

async function openPerson(number) {
  const track = people[number];
  person = number;
  byId("film-caption").textContent = `${chance(track)}; probability of any mask: ${percent(track.worn)}; both by all frames`;
  showFacts("film-facts", {
    ...facts(track.keys),
    "in the video": `${clock(track.first_us)} to ${clock(track.last_us)}`,
    time: track.captured_at ? `${track.captured_at} to ${track.ended_at}` : "—",
    frames: thousands(track.frames),
    video: track.uri,
  });
  byId("film-changes").replaceChildren(...track.changes.map((change) => element("button", {type: "button", onclick: () => seekTo(change.time_us)}, `${clock(change.time_us)} ${DID[change.kind]}`)));
  byId("strip").replaceChildren();
  stage(track);
  if (!byId("film").open) byId("film").showModal();
  try {
    const frames = await answer(`/api/track/${track.id}`, "");
    if (person === number) byId("strip").replaceChildren(...frames.map(frameOf));
  } catch (error) {
    say(error.message);
  }
}

// The video from the track's time on; where the browser cannot play it, the frame in which the face is seen best.
function stage(track) {
  const video = byId("video");
  plays = false;
  say("");
  byId("still").hidden = true;
  video.hidden = false;
  if (!track.face) {
    still(null);
    say("The video's rows have changed: start maskdet explore again.");
    return;
  }
  video.onloadeddata = () => { plays = true; };
  video.onerror = () => {
    still(track.face);
    say("This browser cannot play this video's format, or the video is gone. The frames below are decoded from it.");
  };
  video.src = `/video/${track.face}#t=${track.first_us / 1e6}`;
}

function still(face) {
  const image = byId("still");
  byId("video").hidden = true;
  image.hidden = face === null;
  if (face === null) return;
  image.alt = "frame of the video";
  image.onerror = () => missing(image.cloneNode()).then(() => say("The video is gone, changed or unreadable."));
  image.src = `/picture/image/${face}`;
}

function say(text) {
  byId("film-said").textContent = text;
  byId("film-said").hidden = text === "";
}

function frameOf(frame) {
  return tile(pictureOf(frame.id), [chance(frame), clock(frame.time_us)], {
    class: `face ${frame.label}`,
    "aria-label": `${WORDS[frame.label]} at ${clock(frame.time_us)}`,
    "data-time": frame.time_us,
    onclick: () => plays ? seekTo(frame.time_us) : still(frame.id),
  });
}

// Where the video does not play, the nearest frame of the strip is shown instead.
function seekTo(time_us) {
  if (plays) {
    byId("video").pause();
    byId("video").currentTime = time_us / 1e6;
    return;
  }
  const frames = [...byId("strip").children];
  const away = (one) => Math.abs(Number(one.dataset.time) - time_us);
  frames.reduce((best, one) => best && away(best) <= away(one) ? best : one, null)?.click();
}

function closePerson() {
  byId("film").close();
}

function buildTracks() {
  byId("people").hidden = !start.has_tracks;
  if (!start.has_tracks) return;
  byId("tracks-before").addEventListener("click", () => turnTracks(-1));
  byId("tracks-next").addEventListener("click", () => turnTracks(1));
  byId("film-close").addEventListener("click", closePerson);
  byId("film").addEventListener("close", () => {
    byId("video").pause();
    byId("video").onerror = null;
    byId("video").removeAttribute("src");
    byId("video").load();
    byId("tracks").children[person]?.focus();
    person = -1;
  });
}
