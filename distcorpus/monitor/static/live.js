"use strict";
// The live page: what the server tells, once a second, and which view is looked at.

const state = { now: null, problem: "connecting", jobs: [], incidents: [], samples: [], ended: [], details: {}, window: 120, session: null, paused: null };
const KEPT = { seconds: 600, jobs: 8000, incidents: 500, ended: 20 };
let jobFields = [];

const asJob = (values) => Object.fromEntries(jobFields.map((name, i) => [name, values[i]]));

function take(message) {
  if (message.kind === "problem") {
    state.problem = message.problem;
    return;
  }
  if (message.kind === "state") {
    jobFields = message.job_fields;
    const known = Object.keys(message.now).length > 0;
    Object.assign(state, { now: known ? message.now : null, problem: message.problem, jobs: message.jobs.map(asJob), incidents: message.incidents, samples: message.samples, ended: message.ended });
    return;
  }
  state.problem = "";
  state.now = message.now;
  state.jobs.push(...message.jobs.map(asJob));
  state.incidents.push(...message.incidents);
  if (message.sample) state.samples.push(message.sample);
  state.ended = [...state.ended.filter((one) => !message.ended.some((fresh) => fresh.name === one.name)), ...message.ended];
  const oldest = state.now.time - KEPT.seconds;
  state.jobs = state.jobs.slice(-KEPT.jobs).filter((job) => job.ended >= oldest);
  state.samples = state.samples.filter((sample) => sample.time >= oldest);
  state.incidents = state.incidents.slice(-KEPT.incidents);
  while (state.ended.length > KEPT.ended) state.ended.splice(Math.max(state.ended.findIndex((one) => one.kind === "evaluation"), 0), 1);
}

function render() {
  const [, page = "", argument = ""] = location.hash.split("/");
  const views = { "": View.overview, timeline: View.timeline, traffic: View.traffic, faults: View.faults, session: View.session };
  try { state.session = page === "session" ? decodeURIComponent(argument) : null; } catch { state.session = argument; }
  const shown = page === "timeline" && state.paused ? state.paused : state;
  const width = Math.min(document.documentElement.clientWidth - 32, 1280);
  const view = Object.hasOwn(views, page) ? views[page] : View.overview;
  morph(document.getElementById("page"), View.frame(state, view(shown, width), page));
  document.title = (state.session ? state.session + " – " : "") + "distcorpus";
}

async function look() {
  const name = state.session;
  if (!name || document.hidden) return;
  try {
    const answer = await fetch("details?session=" + encodeURIComponent(name));
    const details = answer.ok ? await answer.json() : null;
    if (details) state.details = { [name]: details };
  } catch {
    return; // the stream says what is wrong
  }
  if (state.session === name) render();
}

function listen() {
  const stream = new EventSource("events");
  stream.onmessage = (event) => {
    take(JSON.parse(event.data));
    if (!document.hidden) render();
  };
  stream.onerror = () => {
    state.problem = "the dashboard's own process does not answer; trying again";
    render();
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, 2000); // it answered, with an error
  };
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-action]");
  if (!button) return;
  const { action, value } = button.dataset;
  if (action === "theme") Theme.turn();
  if (action === "window") { state.window = Number(value); if (state.paused) state.paused.window = state.window; }
  if (action === "pause") state.paused = state.paused ? null : { ...state, paused: true, jobs: [...state.jobs] };
  render();
});
addEventListener("hashchange", () => { scrollTo(0, 0); render(); look(); });
addEventListener("resize", render);
document.addEventListener("visibilitychange", render);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", render);
setInterval(look, 2000);
render();
look();
listen();
