"use strict";
// A report: what was collected, drawn once. What it cannot know it leaves out.

const data = JSON.parse(document.getElementById("data").textContent);
const TEXTS = new Set(["worker", "session", "kernel", "outcome"]);
const state = {
  now: Object.keys(data.now).length ? data.now : null, incidents: data.incidents, samples: data.samples, ended: data.ended,
  jobs: data.jobs.map((values) => Object.fromEntries(data.job_fields.map((name, i) => [name, TEXTS.has(name) ? data.names[values[i]] : values[i]]))),
};

View.hasPages = false;

function ofRun(run, width) {
  const seconds = run.ended - run.began;
  return [
    card(`${run.class}, on ${run.where}`,
      run.error && h("p", { class: "alarm" }, run.error),
      facts(fact("took", Format.seconds(seconds)), fact("began", Format.day(run.began)), fact("documents computed", Format.count(run.documents)),
        fact("documents a second", Format.short(run.documents / seconds)),
        run.updates > 0 && fact("updates", Format.count(run.updates)), run.rounds > 0 && fact("products with the corpus", Format.count(run.rounds)),
        ...Object.entries(run.settings).map(([name, value]) => fact(name, value)))),
    run.curve.length > 1 && curve({ name: "curve " + run.began, title: "Perplexity", points: run.curve, label: "documents computed", format: Format.number, width: widthOf(width, 1) })];
}

function render() {
  const width = Math.min(document.documentElement.clientWidth - 32, 1280);
  const [from, to] = [data.began, Math.max(data.until, data.began + 0.001)];
  const workers = [...new Set(state.jobs.map((job) => job.worker))].sort();
  const good = state.jobs.filter((job) => job.outcome === "accepted");
  const number = columns(width, 420), wide = widthOf(width, number), common = { from, to, live: false, width: wide };
  const own = (key) => data.own_samples.map((sample) => [sample.time, sample[key]]);
  const total = (key) => sum(state.jobs.map((job) => job[key]));
  morph(document.getElementById("page"), h("div", { id: "page" },
    h("header", {}, h("span", { class: "brand" }, data.title), h("span", { class: "where" }, `${Format.day(data.began)}, ${Format.seconds(to - from)}`),
      h("nav"), h("button", { type: "button", id: "theme", "data-action": "theme", title: "dark or light" }, Theme.isDark() ? "☀" : "☾")),
    h("main", {},
      h("div", { class: "tiles" }, tile("Time", Format.seconds(to - from)), tile("Jobs", Format.count(good.length), state.jobs.length > good.length ? plural(state.jobs.length - good.length, "other", "others") : ""),
        tile("Computing", Format.seconds(total("compute_seconds")), "of all workers together"),
        state.now && tile("Travelling", Format.seconds(total("transfer_seconds")), "while others computed, too"),
        state.now && tile("Sent, received", Format.bytes(total("bytes_sent")), "and " + Format.bytes(total("bytes_received")))),
      data.runs.map((run) => ofRun(run, width)),
      data.runs.length === 0 && h("p", { class: "empty" }, "Nothing was trained in this process."),
      workers.length > 0 ? timeline({ jobs: state.jobs, workers, from, to, live: false, width: widthOf(width, 1), incidents: state.incidents })
        : h("p", { class: "empty" }, "No jobs are known."),
      data.jobs_not_shown > 0 && h("p", { class: "note" }, `${plural(data.jobs_not_shown, "further job")} not shown`),
      state.now && View.traffic(state, width, [from, to]),
      h("div", { class: "grid" },
        lines({ ...common, name: "own memory", title: "Memory of this process", format: Format.bytes, series: [{ name: "memory", kind: "compute", points: own("memory") }] }),
        lines({ ...common, name: "own cores", title: "Cores that this process kept busy", format: Format.number, series: [{ name: "cores", kind: "compute", points: own("cores") }] })),
      state.now && state.now.sessions.length + state.ended.length > 0 && card("Training runs on the cluster", h("div", { class: "runs" },
        [...state.now.sessions.map((session) => ({ ...session, ended: state.now.time, outcome: "open" })), ...state.ended]
          .map((session) => View.run(session, laterName(state, session.name))))),
      state.now && View.workers(state.now, "No worker was seen."),
      state.now && card("What happened", state.incidents.length ? View.incidents(state.incidents) : h("p", { class: "empty" }, "Nothing.")),
      card("Versions", facts(...Object.entries(data.versions).map(([name, value]) => fact(name, value)))),
      state.now && state.now.may_differ.length > 0 && card("Builds differ, so that results may in their last bits", h("ul", {}, state.now.may_differ.map((text) => h("li", {}, text)))))));
}

document.addEventListener("click", (event) => {
  if (event.target.closest("[data-action=theme]")) { Theme.turn(); render(); }
});
addEventListener("resize", render);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", render);
render();
