"use strict";
// What the pages show, each as a function of what is known (`state`) and the width that there is.

const STATES = { ready: "good", connecting: "warning", silent: "warning", leaving: "warning", refused: "critical", unreachable: "critical", expelled: "critical", stock: "warning", gone: "past" };
const KINDS = { lda: "LDA", lsi: "LSI", evaluation: "evaluation" };
const PHASES = { arriving: "documents arriving", computing: "computing", paused: "waits for its program", done: "done" };
/** How a session ended, before the time of it; of "unknown" and "open" that is when it was seen last. */
const OUTCOMES = { finished: "finished at", failed: "failed at", interrupted: "interrupted at", idle: "ended, as its program called nothing, at", stopped: "ended with the dispatcher at", kept: "kept for the next dispatcher at", unknown: "last seen at", open: "under way at" };
const EXPLAINED = {
  interrupted: "Its program was interrupted, or is gone.", stopped: "The dispatcher was ended.", kept: "The dispatcher was ended. It goes on with the next one, if its program is still there.",
  unknown: "The dispatcher was killed, or does not tell how it ended.",
};
const BAD_OUTCOMES = { failed: "critical", interrupted: "warning", idle: "warning", stopped: "warning" };
/** Seconds for which the number of errors is shown at the top. */
const ERRORS_FOR = 600;
const WINDOWS = [[30, "30 s"], [120, "2 min"], [600, "10 min"]];

const sessionLink = (name) => (View.hasPages ? h("a", { href: "#/session/" + encodeURIComponent(name) }, name) : h("b", {}, name));
const fact = (name, ...value) => h("div", { class: "fact" }, h("dt", {}, name), h("dd", {}, ...value));
const facts = (...all) => h("dl", { class: "facts" }, ...all);
const tile = (name, value, note, kind) => h("div", { class: "tile" + (kind ? " " + kind : "") }, h("div", { class: "name" }, name), h("div", { class: "value" }, value), h("div", { class: "note" }, note || "\u00a0"));
const card = (title, ...inside) => h("section", { class: "card", "data-key": "card " + title }, h("h2", {}, title), ...inside);
const status = (kind, text) => h("span", { class: "status " + kind }, h("i", { class: "dot " + kind }), text);
const columns = (width, least) => Math.max(1, Math.floor((width + 16) / (least + 16)));
const widthOf = (width, number) => Math.floor((width - 16 * (number - 1)) / number) - 34;

function table(heads, rows, empty) {
  if (!rows.length) return h("p", { class: "empty" }, empty);
  return h("div", { class: "scroll" }, h("table", {},
    h("thead", {}, h("tr", {}, heads.map(([name, kind]) => h("th", { class: kind, scope: "col" }, name)))),
    h("tbody", {}, rows.map(([key, cells]) => h("tr", { "data-key": key }, cells.map((cell, i) => h("td", { class: heads[i][1] }, cell)))))));
}

function progress(session) {
  const done = session.phase === "done" ? 1 : session.progress;
  return [
    h("progress", known(done) ? { max: 1, value: done.toFixed(4), "aria-label": "progress of " + session.name } : { max: 1, "aria-label": "progress of " + session.name }),
    h("span", { class: "share" }, known(done) ? Format.percent(done) : "")];
}

function left(session) {
  if (session.ended) {
    const said = (OUTCOMES[session.outcome] || "ended at") + " " + Format.clock(session.ended), bad = BAD_OUTCOMES[session.outcome];
    return bad ? status(bad, said) : said;
  }
  if (session.phase === "done") return "done";
  return known(session.seconds_left) ? Format.seconds(session.seconds_left) + " left" : "";
}

function stands(session) {
  const parts = [];
  if (known(session.passes) && session.passes > 1) parts.push(`pass ${Math.min((session.pass_ || 0) + 1, session.passes)} of ${session.passes}`);
  if (known(session.updates)) parts.push(`update ${Format.count(session.updates)}` + (known(session.updates_expected) ? ` of ${Format.count(session.updates_expected)}` : ""));
  else if (known(session.round) && session.ended) parts.push(plural(session.round, "round"));
  else if (known(session.round)) parts.push(`round ${session.round}` + (known(session.rounds_expected) ? ` of about ${session.rounds_expected}` : ""));
  if (known(session.error)) parts.push("error " + Format.number(session.error));
  if (known(session.perplexity)) parts.push("perplexity " + Format.number(session.perplexity));
  return parts.join(", ");
}

/** What it waits for, where that is not what it computes. */
function waiting(session) {
  if (session.ended) return "";
  if (session.phase === "done") return "has its result";
  return { "no worker": "waits for a worker: there is none", "the client": "waits for the program" }[session.waits_for] || "";
}

/** The name under which a session goes on, or did, at a dispatcher that was started again. */
function laterName(state, name) {
  const later = [...state.now.sessions, ...state.ended].find((one) => one.earlier === name);
  return later && later.name;
}

const sum = (values) => values.reduce((total, value) => total + (value || 0), 0);

const View = {
  /** Whether there are pages to go to. */
  hasPages: true,

  frame(state, inside, at) {
    const now = state.now, sessions = now ? now.sessions : [];
    const bad = now ? state.incidents.filter((one) => one.severity === "error" && one.time > now.time - ERRORS_FOR).length : 0;
    const links = [["", "Overview"], ["timeline", "Timeline"], ["traffic", "Traffic"], ["faults", "Faults"]];
    return h("div", { id: "page" },
      h("header", {},
        h("a", { class: "brand", href: "#/" }, s("svg", { viewBox: "0 0 32 32", width: 26, height: 26, "aria-hidden": "true" },
          s("rect", { class: "fill compute", width: 32, height: 32, rx: 7 }), s("path", { class: "on-accent", d: "M7 22h5v-6H7zm7 0h5V9h-5zm7 0h5v-9h-5z" })), "distcorpus"),
        h("span", { class: "where", id: "connection" }, state.problem ? status(now ? "critical" : "warning", now ? "no answer" : "connecting")
          : now && status("good", now.location || now.host)),
        h("nav", { "aria-label": "pages" }, links.map(([page, name]) => h("a", { href: "#/" + page, "aria-current": at === page ? "page" : null }, name,
          page === "faults" && bad > 0 && h("span", { class: "badge" }, bad)))),
        h("button", { type: "button", id: "theme", "data-action": "theme", title: "dark or light" }, Theme.isDark() ? "☀" : "☾")),
      state.problem && h("div", { class: "banner", role: "alert" }, now ? "No answer from the dispatcher since " + Format.clock(now.time) + ": what you see is from then. " : "", state.problem),
      h("main", {}, inside),
      now && h("footer", {}, `dispatcher ${now.version} on ${now.host}, process ${now.pid}, up ${Format.seconds(now.time - now.began)}`,
        now.tls ? ", TLS" + (known(now.certificate_expires) ? " until " + Format.day(now.certificate_expires) : "") : ", no TLS",
        sessions.length ? "" : ", no training run"));
  },

  overview(state, width) {
    const now = state.now;
    if (!now) return h("p", { class: "empty" }, "Nothing has been heard of a dispatcher yet.");
    const last = state.samples[state.samples.length - 1] || {};
    const usable = now.workers.filter((worker) => ["ready", "silent", "leaving", "connecting"].includes(worker.state));
    const ready = now.worker_states.ready || 0, other = sum(Object.values(now.worker_states)) - ready;
    const queued = sum(now.sessions.map((session) => session.chunks_queued));
    const ended = state.ended.slice(-5).reverse();
    return [
      h("div", { class: "tiles" },
        tile("Workers", Format.count(ready), other ? plural(other, "other", "others") + " not ready" : "all ready", other ? "warning" : ""),
        tile("Training runs", Format.count(now.sessions.filter((session) => session.phase !== "done").length), plural(now.sessions.length, "session") + " open"),
        tile("Documents a second", Format.short(last.documents || 0), Format.short(now.totals.documents) + " computed in all"),
        tile("Traffic a second", Format.bytes((last.sent || 0) + (last.received || 0)), Format.bytes(now.totals.bytes_sent + now.totals.bytes_received) + " in all"),
        tile("Chunks queued", Format.count(queued), now.sessions.length && now.sessions[0].max_queued ? "at most " + Format.count(now.sessions[0].max_queued) + " a run" : "")),
      card("Training runs", now.sessions.length || ended.length ? h("div", { class: "runs" }, [...now.sessions, ...ended].map((session) => View.run(session, laterName(state, session.name))))
        : h("p", { class: "empty" }, "No training run. Train with ", h("code", {}, "distributed=True"), " and it appears here.")),
      View.workers(now),
      state.incidents.length > 0 && card("Lately", View.incidents(state.incidents.slice(-6))),
      usable.length > 0 && timeline({ jobs: state.jobs, workers: usable.map((worker) => worker.name).sort(), from: now.time - 60, to: now.time, live: true, width: widthOf(width, 1), most: 12 }),
    ];
  },

  run(session, later) {
    const name = sessionLink(session.name);
    const kind = h("span", { class: "kind" }, KINDS[session.kind] || session.kind, known(session.topics) ? `, ${Format.count(session.topics)} topics` : "");
    if (session.ended) {
      return h("article", { class: "run over", "data-key": session.name },
        h("div", { class: "run-line" }, h("span", { class: "run-name" }, name, kind),
          h("span", {}, [stands(session), plural(session.documents_done, "document") + " computed"].filter(Boolean).join(", ")),
          h("span", {}, later ? ["goes on as ", sessionLink(later)] : left(session))),
        session.reason && h("p", { class: "reason" }, session.reason));
    }
    return h("article", { class: "run", "data-key": session.name },
      h("div", { class: "run-head run-name" }, name, kind, h("span", { class: "spread" }), h("span", { class: "left" }, left(session))),
      h("div", { class: "bar" }, progress(session)),
      h("div", { class: "run-foot" }, h("span", {}, stands(session)), h("span", {}, known(session.rate) ? Format.short(session.rate) + " documents/s" : ""),
        h("span", { class: session.waits_for === "no worker" ? "alarm" : "" }, waiting(session))));
  },

  workers(now, none = "No worker. Start 'distcorpus worker' on any machine that reaches the name server.") {
    const told = sum(Object.values(now.worker_states)) - now.workers.length;
    const rows = [...now.workers].sort((a, b) => (a.name < b.name ? -1 : 1)).map((worker) => [worker.name, [
      h("b", { class: "name" }, worker.name), status(STATES[worker.state] || "warning", worker.state), worker.host || "–",
      Format.count(worker.threads),
      known(worker.busy) ? shares([["compute", worker.busy], ["transfer", worker.transfer], ["idle", worker.idle]],
        `computing ${Format.percent(worker.busy)}, transfer ${Format.percent(worker.transfer)}, idle ${Format.percent(worker.idle)} of the last minute`) : "–",
      known(worker.busy) ? Format.percent(worker.busy) : "–",
      worker.reason || (worker.job ? worker.job + (known(worker.job_seconds) ? ", " + Format.seconds(worker.job_seconds) : "") : worker.state === "gone" ? "–" : "idle"),
      Format.count(worker.jobs), Format.short(worker.documents),
      Format.bytes(worker.bytes_sent + worker.bytes_received), Format.bytes(worker.bytes_resident), or(worker.ping_seconds, Format.seconds(worker.ping_seconds))]]);
    return card("Workers", table([["worker"], ["state"], ["host"], ["threads", "num"], ["last minute", "shares-cell"], ["busy", "num"], ["job under way", "wide"],
      ["jobs", "num"], ["documents", "num"], ["traffic", "num"], ["memory", "num"], ["ping", "num"]], rows, none),
    told > 0 && h("p", { class: "note" }, `${plural(told, "further worker")} not shown`));
  },

  timeline(state, width) {
    const now = state.now;
    if (!now) return View.overview(state, width);
    const names = new Set(now.workers.filter((worker) => worker.state !== "stock").map((worker) => worker.name));
    for (const job of state.jobs) if (job.ended > now.time - state.window) names.add(job.worker);
    const jobs = state.jobs.filter((job) => job.ended > now.time - state.window);
    const good = jobs.filter((job) => job.outcome === "accepted");
    const middle = (key) => { const all = good.map((job) => job[key]).sort((a, b) => a - b); return all.length ? Format.seconds(all[all.length >> 1]) : "–"; };
    return [
      h("div", { class: "switch", role: "group", "aria-label": "time shown" }, WINDOWS.map(([seconds, name]) =>
        h("button", { type: "button", "data-action": "window", "data-value": seconds, "aria-pressed": String(state.window === seconds) }, name)),
      h("button", { type: "button", "data-action": "pause", "aria-pressed": String(!!state.paused) }, state.paused ? "go on" : "hold")),
      timeline({ jobs, workers: [...names].sort(), from: now.time - state.window, to: now.time, live: true, width: widthOf(width, 1), incidents: state.incidents }),
      h("div", { class: "tiles" }, tile("Jobs", Format.count(jobs.length), "in the time shown"), tile("Computing", middle("compute_seconds"), "median of a job"),
        tile("Travelling", middle("transfer_seconds"), "median of a job"), tile("Waiting", middle("queue_seconds"), "median of a job"), tile("Adding up", middle("sum_seconds"), "median of a job")),
      h("p", { class: "note" }, "Two jobs are with a worker at a time, so that the next one travels (thin line) while this one computes (thick). The number is the share of the time in which a worker computed.")];
  },

  traffic(state, width, over) {
    const now = state.now;
    if (!now) return View.overview(state, width);
    const number = columns(width, 420), wide = widthOf(width, number);
    const from = over ? over[0] : now.time - state.window, to = over ? over[1] : now.time;
    const series = (...all) => all.map(([name, kind, key]) => ({ name, kind, points: state.samples.map((sample) => [sample.time, sample[key]]) }));
    const common = { from, to, live: !over, width: wide };
    const rate = (value) => Format.bytes(value) + "/s", count = (value) => Format.short(value);
    return [
      !over && h("div", { class: "switch", role: "group", "aria-label": "time shown" }, WINDOWS.map(([seconds, name]) =>
        h("button", { type: "button", "data-action": "window", "data-value": seconds, "aria-pressed": String(state.window === seconds) }, name))),
      h("div", { class: "grid" },
        lines({ ...common, name: "traffic", title: "Traffic a second", format: rate, series: series(["to workers", "compute", "sent"], ["from workers", "transfer", "received"]) }),
        lines({ ...common, name: "documents", title: "Documents a second", format: count, series: series(["documents", "compute", "documents"]) }),
        lines({ ...common, name: "memory", title: "Memory", format: Format.bytes, series: series(["dispatcher", "compute", "memory_dispatcher"], ["of it documents", "transfer", "memory_documents"], ["workers", "third", "memory_workers"]) }),
        lines({ ...common, name: "queue", title: "Chunks queued", format: count, series: series(["chunks", "compute", "queued"]) }),
        lines({ ...common, name: "jobs", title: "Jobs a second", format: count, series: series(["jobs", "compute", "jobs"]) }),
        lines({ ...common, name: "number", title: "Workers", format: count, series: series(["workers", "compute", "workers"]) })),
      !over && card("The dispatcher", facts(
        fact("documents in memory", Format.bytes(now.bytes_documents)), fact("tables", Format.bytes(now.bytes_tables)),
        fact("its process", Format.bytes(now.bytes_resident)), fact("of its machine's", Format.bytes(now.bytes_machine)),
        fact("spool", now.spool || "none"), fact("free there", Format.bytes(now.bytes_spool_free)),
        fact("sent to workers", Format.bytes(now.totals.bytes_sent)), fact("received from them", Format.bytes(now.totals.bytes_received))))];
  },

  session(state, width) {
    const now = state.now;
    if (!now) return View.overview(state, width);
    const name = state.session;
    const session = now.sessions.find((one) => one.name === name) || state.ended.find((one) => one.name === name);
    const later = laterName(state, name);
    if (!session) return card(name, h("p", { class: "empty" }, "There is no session of this name: it has ended, or never began."));
    return [
      h("section", { class: "card", "data-key": "session " + name },
        h("h1", {}, name, h("span", { class: "kind" }, " ", KINDS[session.kind] || session.kind)),
        h("div", { class: "bar" }, !session.ended && progress(session), h("span", { class: "left" }, left(session))),
        later && h("p", {}, "It goes on as ", sessionLink(later), ", since the dispatcher was started again."),
        session.earlier && h("p", {}, "It was ", sessionLink(session.earlier), " before the dispatcher was started again."),
        session.reason && h("p", { class: "reason" }, session.reason),
        session.ended && !later && EXPLAINED[session.outcome] && h("p", {}, EXPLAINED[session.outcome]),
        h("p", { class: "stands" }, [session.ended ? "" : PHASES[session.phase] || session.phase, waiting(session), stands(session)].filter(Boolean).join(", ")),
        facts(fact("topics", Format.count(session.topics)), fact("terms", Format.count(session.terms)),
          fact("documents", Format.count(session.documents_arrived) + (known(session.documents_expected) ? " of " + Format.count(session.documents_expected) : "")),
          fact("computed", Format.count(session.documents_done) + (known(session.documents_to_do) ? " of " + Format.count(session.documents_to_do) : "")),
          fact("rate", known(session.rate) ? Format.short(session.rate) + "/s" : "–"), fact("blocks of the round", `${Format.count(session.blocks_done)} of ${Format.count(session.blocks)}`),
          fact("chunks queued", Format.count(session.chunks_queued)), fact("jobs", Format.count(session.jobs)), fact("under way", Format.count(session.jobs_under_way)),
          fact("failed, repeated", Format.count(session.jobs_failed) + ", " + Format.count(session.jobs_repeated)),
          fact("sent, received", Format.bytes(session.bytes_sent) + ", " + Format.bytes(session.bytes_received)),
          fact("documents in memory", Format.bytes(session.bytes_memory)), fact("spooled", Format.bytes(session.bytes_spooled)),
          fact("program", session.client + " on " + (session.host || "?") + (known(session.pid) ? ", process " + session.pid : "") + (session.role ? ", " + session.role : "")),
          fact("began", Format.day(session.began)), fact("kernels", session.kernels || "–"))),
      ...View.found(session, state.details[name], width)];
  },

  /** What a session has found: its curve, its spectrum, its topics. */
  found(session, details, width) {
    if (!details) return [h("p", { class: "empty", "data-key": "details" }, session.ended ? "What it had found is not known: this page was not open." : "What it has found so far comes in a moment.")];
    const lsi = session.kind === "lsi", number = columns(width, 420), parts = [];
    const curves = lsi + (details.history.length > 0), wide = widthOf(width, Math.min(number, Math.max(curves, 1)));
    if (details.history.length) {
      parts.push(curve({ name: "history", title: lsi ? "Estimated error" : "Perplexity", points: details.history.map((point) => [point.documents_done, point.value]),
        label: "documents computed", format: Format.number, width: wide, logarithmic: lsi, target: lsi ? session.tolerance : null }));
    }
    if (details.singular_values.length) {
      parts.push(curve({ name: "spectrum", title: "Singular values", points: details.singular_values.map((value, i) => [i + 1, value]), label: "number",
        format: Format.number, formatX: (value) => String(Math.round(value)), width: wide, bars: true }));
    }
    return [
      h("div", { class: parts.length > 1 ? "grid" : "one", "data-key": "curves" }, parts),
      details.topics.length > 0 && card(session.ended ? "Topics as they were seen last" : "Topics now", View.topics(details.topics, lsi))];
  },

  topics(topics, signed) {
    return h("div", { class: "topics" }, topics.map((topic) => {
      const largest = Math.max(...topic.values.map(Math.abs), 1e-300);
      return h("article", { class: "topic", "data-key": topic.number },
        h("h3", {}, "Topic " + topic.number, h("span", { class: "figure" }, signed ? Format.number(topic.weight) : Format.percent(topic.weight) + " of tokens")),
        topic.terms.map((term, i) => h("div", { class: "term" },
          h("span", { class: "word" }, (topic.words[i] || "term " + term)),
          s("svg", { viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" },
            s("rect", { class: "fill " + (topic.values[i] < 0 ? "transfer" : "compute"), width: ((100 * Math.abs(topic.values[i])) / largest).toFixed(1), height: 8 })),
          h("span", { class: "num" }, topic.values[i].toFixed(3)))));
    }));
  },

  incidents(incidents) {
    return h("ol", { class: "incidents" }, [...incidents].reverse().map((one) => h("li", { "data-key": one.number },
      h("time", {}, Format.clock(one.time)), status({ info: "good", warning: "warning", error: "critical" }[one.severity] || "warning", one.kind),
      h("span", { class: "text" }, [one.worker && h("b", {}, one.worker), one.worker && one.session && ", ", one.session && sessionLink(one.session), (one.worker || one.session) && one.text && ": ", one.text]))));
  },

  faults(state) {
    const now = state.now;
    if (!now) return View.overview(state, 0);
    const totals = now.totals, outcome = (kind) => sum(Object.values(totals.jobs).map((kernel) => kernel[kind]));
    const unusable = now.workers.filter((worker) => worker.reason);
    const number = (name, value, note) => tile(name, Format.count(value), note, value ? "warning" : "");
    return [
      h("div", { class: "tiles" }, number("Workers lost", totals.workers_lost), number("Jobs lost", outcome("lost"), "and repeated"),
        number("Jobs failed", outcome("failed"), "and repeated"), number("Workers expelled", totals.workers_expelled, "for a false answer"),
        number("Sessions failed", totals.sessions_failed), number("Connections refused", sum(Object.values(totals.connections_refused)), Object.keys(totals.connections_refused).join(", ")),
        tile("Overtaken", Format.count(totals.jobs_overtaken), "of " + plural(totals.jobs_copied, "second copy", "second copies"))),
      unusable.length > 0 && card("Workers that cannot be used", table([["worker"], ["state"], ["reason", "wide"]],
        unusable.map((worker) => [worker.name, [h("b", {}, worker.name), status(STATES[worker.state] || "critical", worker.state), worker.reason]]))),
      now.may_differ.length > 0 && card("Builds differ, so that results may in their last bits", h("ul", {}, now.may_differ.map((text) => h("li", {}, text)))),
      card("What happened", state.incidents.length ? View.incidents(state.incidents) : h("p", { class: "empty" }, "Nothing yet."))];
  },
};
