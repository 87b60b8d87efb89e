"use strict";
// Plots: plain SVG, coloured by the style sheet. Each leaves behind, by its name, what is shown where one points.

const Chart = { hover: new Map() };

/** The round number that is not below another. */
function roundUp(raw) {
  const power = 10 ** Math.floor(Math.log10(raw));
  return [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= raw * 0.999);
}

/** About `count` round numbers from 0 to `top`. */
function roundSteps(top, count) {
  const step = roundUp(top / count), steps = [];
  for (let number = 0; number <= Math.ceil(top / step - 1e-9); number += 1) steps.push(number * step);
  return steps;
}

/** The round whole numbers, about `count`, between two. */
function roundMarks(first, last, count) {
  const step = Math.max(roundUp((last - first) / count), 1), marks = [];
  for (let number = Math.ceil(first / step); number * step <= last; number += 1) marks.push(number * step);
  return marks;
}

/** What a mark of an axis says: no zeros that say nothing. */
const mark = (text) => text.replace(/(\.\d*?)0+(?=\D|$)/, "$1").replace(/\.(?=\D|$)/, "");

/** Marks of a time axis: each with its place and what it says, counted back from the end. */
function timeMarks(from, to, width) {
  const span = to - from;
  const step = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 21600, 43200, 86400]
    .find((size) => (size / span) * width >= 70) || span;
  const marks = [];
  for (let back = 0; back <= span + 1e-6; back += step) {
    const text = back === 0 ? "now" : back % 3600 === 0 ? "−" + back / 3600 + " h" : back % 60 === 0 ? "−" + back / 60 + " min" : "−" + back + " s";
    marks.push([to - back, text]);
  }
  return marks;
}

/** The same counted from the beginning, for what is over. */
function timeMarksSince(from, to, width) {
  const marks = timeMarks(from, to, width);
  return marks.map(([at]) => [from + (to - at), at === to ? "0" : mark(Format.seconds(to - at))]);
}

const marksOf = (from, to, width, live) => (live ? timeMarks : timeMarksSince)(from, to, width);

/** Lines over time. `series`: {name, kind, points: [[time, value]]}; kind is a class of the style sheet. */
function lines({ name, title, series, from, to, live, format, width, height = 150, note }) {
  const left = 64, right = 12, top = 10, bottom = 22;
  const inner = width - left - right, tall = height - top - bottom;
  const shown = series.map((one) => ({ ...one, points: one.points.filter(([time]) => time >= from && time <= to) }));
  const largest = Math.max(...shown.flatMap((one) => one.points.map(([, value]) => value)), 0);
  const steps = roundSteps(largest || 1, 3), ceiling = steps[steps.length - 1];
  const x = (time) => left + (inner * (time - from)) / (to - from || 1);
  const y = (value) => top + tall * (1 - value / ceiling);
  const path = (points) => points.map(([time, value], i) => (i ? "L" : "M") + x(time).toFixed(1) + " " + y(value).toFixed(1)).join("");
  Chart.hover.set(name, (px) => {
    const time = from + ((px - left) / inner) * (to - from);
    const at = shown.map((one) => nearest(one.points, time)).filter(Boolean);
    if (!at.length) return null;
    return {
      x: x(at[0][0]), top, bottom: height - bottom,
      lines: [live ? Format.clock(at[0][0]) : Format.seconds(at[0][0] - from) + " after the start",
        ...shown.map((one) => [one, nearest(one.points, time)]).filter(([, point]) => point)
          .map(([one, point]) => [one.kind, one.name, format(point[1])])],
    };
  });
  const latest = shown.length === 1 && shown[0].points.length ? format(shown[0].points[shown[0].points.length - 1][1]) : "";
  return h("figure", { class: "card chart", "data-key": name },
    h("figcaption", {}, h("span", { class: "title" }, title),
      shown.length > 1 ? legend(shown) : live && h("span", { class: "figure" }, latest)),
    s("svg", { "data-chart": name, viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": title },
      steps.map((step) => [
        s("line", { class: step ? "grid" : "axis", x1: left, x2: width - right, y1: y(step), y2: y(step) }),
        s("text", { class: "tick", x: left - 6, y: y(step) + 4, "text-anchor": "end" }, mark(format(step))),
      ]),
      marksOf(from, to, inner, live).map(([time, text]) =>
        s("text", { class: "tick", x: x(time), y: height - 6, "text-anchor": x(time) > width - 40 ? "end" : x(time) < left + 20 ? "start" : "middle" }, text)),
      shown.map((one) => one.points.length > 0 && [
        shown.length === 1 && s("path", { class: "area " + one.kind, d: path(one.points) + `L${x(one.points[one.points.length - 1][0]).toFixed(1)} ${y(0)}L${x(one.points[0][0]).toFixed(1)} ${y(0)}Z` }),
        s("path", { class: "line " + one.kind, d: path(one.points) }),
      ]),
      s("line", { class: "cross", x1: -10, x2: -10, y1: top, y2: height - bottom })),
    note && h("p", { class: "note" }, note));
}

function nearest(points, time) {
  let best = null;
  for (const point of points) if (!best || Math.abs(point[0] - time) < Math.abs(best[0] - time)) best = point;
  return best;
}

const legend = (series) => h("span", { class: "legend" },
  series.map((one) => h("span", {}, h("i", { class: "swatch " + one.kind }), one.name)));

/** A curve over anything but time, or bars. `logarithmic` where what matters are factors. */
function curve({ name, title, points, label, format, formatX = Format.short, width, height = 200, bars, logarithmic, target, note, figure }) {
  const left = 58, right = 14, top = 12, bottom = 34;
  const inner = width - left - right, tall = height - top - bottom;
  const usable = logarithmic ? points.filter(([, value]) => value > 0) : points;
  const values = usable.map(([, value]) => value).concat(known(target) && (!logarithmic || target > 0) ? [target] : []);
  let steps, y;
  if (logarithmic) {
    const low = Math.floor(Math.log10(Math.min(...values))), high = Math.max(Math.ceil(Math.log10(Math.max(...values))), low + 1);
    const every = Math.ceil((high - low) / 5);
    steps = [];
    for (let power = low; power <= high; power += every) steps.push(10 ** power);
    y = (value) => top + tall * (1 - (Math.log10(value) - low) / (high - low));
  } else {
    const least = Math.min(...values), most = Math.max(...values);
    const step = roundSteps((bars || least < 0.5 * most ? most : most - least) || most || 1, 4)[1];
    const base = bars || least < 0.5 * most ? 0 : Math.floor(least / step) * step;
    const raised = roundSteps(most - base || step, 4);
    steps = raised.map((size) => base + size);
    y = (value) => top + tall * (1 - (value - base) / raised[raised.length - 1]);
  }
  const first = bars ? 0.5 : Math.min(...usable.map(([at]) => at));
  const last = bars ? usable.length + 0.5 : Math.max(...usable.map(([at]) => at), first + 1e-9);
  const x = (at) => left + (inner * (at - first)) / (last - first);
  const wide = bars ? Math.max((inner / usable.length) * 0.8, 0.6) : 0;
  Chart.hover.set(name, (px) => {
    const point = nearest(usable, first + ((px - left) / inner) * (last - first));
    return point && { x: x(point[0]), top, bottom: height - bottom, lines: [`${label} ${formatX(point[0])}`, ["compute", figure || title, format(point[1])]] };
  });
  const marks = bars
    ? usable.map(([at]) => at).filter((at) => at === 1 || at % (roundSteps(usable.length, 6)[1] || 1) === 0)
    : usable.length > 1 ? roundMarks(first, last, Math.min(Math.max(Math.floor(inner / 70), 3), 8)) : [first];
  return h("figure", { class: "card chart", "data-key": name },
    h("figcaption", {}, h("span", { class: "title" }, title),
      usable.length > 0 && h("span", { class: "figure" }, bars ? "" : format(usable[usable.length - 1][1]))),
    usable.length === 0 ? h("p", { class: "empty" }, "nothing yet") : s("svg", { "data-chart": name, viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": title },
      steps.map((step, i) => [
        s("line", { class: i ? "grid" : "axis", x1: left, x2: width - right, y1: y(step), y2: y(step) }),
        s("text", { class: "tick", x: left - 6, y: y(step) + 4, "text-anchor": "end" }, mark(format(step))),
      ]),
      marks.map((at) => s("text", { class: "tick", x: x(at), y: height - 20, "text-anchor": x(at) > width - 40 ? "end" : "middle" }, mark(formatX(at)))),
      s("text", { class: "tick", x: left + inner / 2, y: height - 5, "text-anchor": "middle" }, label),
      known(target) && (!logarithmic || target > 0) && [
        s("line", { class: "target", x1: left, x2: width - right, y1: y(target), y2: y(target) }),
        s("text", { class: "tick", x: width - right, y: y(target) - 5, "text-anchor": "end" }, "wanted: " + format(target))],
      bars
        ? s("path", { class: "fill compute", d: usable.map(([at, value]) => `M${(x(at) - wide / 2).toFixed(1)} ${y(value).toFixed(1)}h${wide.toFixed(1)}V${(top + tall).toFixed(1)}h${(-wide).toFixed(1)}Z`).join("") })
        : [s("path", { class: "line compute", d: usable.map(([at, value], i) => (i ? "L" : "M") + x(at).toFixed(1) + " " + y(value).toFixed(1)).join("") }),
          usable.length < 40 && usable.map(([at, value]) => s("circle", { class: "fill compute", cx: x(at), cy: y(value), r: 2.5 }))],
      s("line", { class: "cross", x1: -10, x2: -10, y1: top, y2: height - bottom })),
    note && h("p", { class: "note" }, note));
}

/** When the parts of a job were, as far as is known: what went and what came share the seconds of transfer by their bytes. */
function partsOf(job) {
  const out = job.transfer_seconds * (job.bytes_sent / (job.bytes_sent + job.bytes_received || 1));
  const summing = job.ended - job.sum_seconds, back = summing - (job.transfer_seconds - out);
  return { transfer: [[job.began, job.began + out], [back, summing]], compute: [[back - job.compute_seconds, back]] };
}

const GOOD = new Set(["accepted"]), LOST = new Set(["failed", "lost"]);
/** Shades of a column of pixels: how much of its time was so. */
const SHADES = 20;
/** Where the parts of a row of the timeline are in it: from the top, and how tall. */
const ROW_PARTS = { compute: [3, 14], spare: [10, 7], bad: [3, 14], transfer: [18, 4] };

/** A row a worker: what it computed, what travelled meanwhile, what failed. */
function timeline({ jobs, workers, from, to, live, width, most = 40, incidents = [] }) {
  const longest = Math.max(...workers.map((worker) => worker.length), 6);
  const left = Math.min(Math.max(longest * 7 + 12, 60), width * 0.3), right = 52, row = 26, top = 6;
  const rows = new Map(workers.slice(0, most).map((worker, i) => [worker, i]));
  const inner = width - left - right, height = top + rows.size * row + 24;
  const x = (time) => left + (inner * (Math.min(Math.max(time, from), to) - from)) / (to - from || 1);
  const pixels = Math.max(Math.floor(inner), 1), covers = new Map(Object.keys(ROW_PARTS).map((kind) => [kind, new Map()]));
  const busy = new Map([...rows.keys()].map((worker) => [worker, { compute: [], transfer: [] }]));
  const put = (kind, worker, [begin, end]) => {
    const a = ((Math.max(begin, from) - from) / (to - from || 1)) * pixels, b = ((Math.min(end, to) - from) / (to - from || 1)) * pixels;
    if (!(b > a)) return;
    const rowsOf = covers.get(kind);
    if (!rowsOf.has(worker)) rowsOf.set(worker, new Float64Array(pixels));
    const cover = rowsOf.get(worker);
    for (let pixel = Math.floor(a); pixel < Math.min(b, pixels); pixel += 1) cover[pixel] += Math.min(b, pixel + 1) - Math.max(a, pixel);
  };
  for (const job of jobs) {
    if (!rows.has(job.worker) || job.ended < from) continue;
    const parts = partsOf(job);
    if (LOST.has(job.outcome)) {
      put("bad", job.worker, [job.began, job.ended]);
      continue;
    }
    for (const part of parts.compute) {
      put(GOOD.has(job.outcome) ? "compute" : "spare", job.worker, part);
      busy.get(job.worker).compute.push(part);
    }
    for (const part of parts.transfer) put("transfer", job.worker, part);
  }
  Chart.hover.set("timeline", (px, py) => {
    const worker = [...rows.keys()][Math.floor((py - top) / row)];
    if (!worker || px < left || px > width - right) return null;
    const time = from + ((px - left) / inner) * (to - from), slack = (to - from) / inner;
    const job = jobs.find((one) => one.worker === worker && [...partsOf(one).compute, ...(LOST.has(one.outcome) ? [[one.began, one.ended]] : [])]
      .some(([begin, end]) => begin - slack <= time && time <= end + slack));
    const heading = `${worker}, ${live ? Format.clock(time) : Format.seconds(time - from) + " after the start"}`;
    if (!job) return { x: px, top: 0, bottom: height - 22, lines: [heading, "idle, or waiting"] };
    return {
      x: px, top: 0, bottom: height - 22,
      lines: [heading, `${job.session}, round ${job.round}: ${job.kernel}${job.outcome === "accepted" ? "" : ", " + job.outcome}`, plural(job.documents, "document"),
        ["compute", "computed", Format.seconds(job.compute_seconds)], ["transfer", "travelled", Format.seconds(job.transfer_seconds)],
        ["idle", "waited", Format.seconds(job.queue_seconds)], ["", "sent, received", Format.bytes(job.bytes_sent) + ", " + Format.bytes(job.bytes_received)]],
    };
  });
  const marks = marksOf(from, to, inner, live);
  return h("figure", { class: "card chart", "data-key": "timeline" },
    h("figcaption", {}, h("span", { class: "title" }, "Jobs by worker"),
      legend([{ name: "compute", kind: "compute" }, { name: "transfer", kind: "transfer" }, { name: "computed for nothing", kind: "spare" }, { name: "failed or lost", kind: "bad" }, { name: "idle", kind: "idle" }])),
    s("svg", { "data-chart": "timeline", viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": "Jobs by worker over time" },
      marks.map(([time]) => s("line", { class: "grid", x1: x(time), x2: x(time), y1: top, y2: height - 22 })),
      [...rows].map(([worker, i]) => [
        s("rect", { class: "lane", x: left, y: top + i * row + 3, width: inner, height: 19, rx: 2 }),
        s("text", { class: "label", x: left - 8, y: top + i * row + 17, "text-anchor": "end" }, shorten(worker, Math.floor((left - 12) / 7))),
        s("text", { class: "label", x: width, y: top + i * row + 17, "text-anchor": "end" }, Format.percent(covered(busy.get(worker).compute, from, to) / (to - from || 1))),
      ]),
      ["spare", "compute", "transfer", "bad"].map((kind) => shaded(covers.get(kind), kind, (worker) => top + rows.get(worker) * row, left, inner / pixels)),
      incidents.filter((one) => one.time >= from && one.time <= to && one.severity !== "info")
        .map((one) => s("line", { class: "incident " + one.severity, x1: x(one.time), x2: x(one.time), y1: 0, y2: height - 22 }, s("title", {}, one.kind + " " + one.worker))),
      marks.map(([time, text]) => s("text", { class: "tick", x: x(time), y: height - 6, "text-anchor": x(time) > left + inner - 20 ? "end" : x(time) < left + 20 ? "start" : "middle" }, text)),
      s("line", { class: "cross", x1: -10, x2: -10, y1: top, y2: height - 22 })),
    workers.length > most && h("p", { class: "note" }, `${plural(workers.length - most, "further worker")} not shown`));
}

/** What is covered of each pixel of some rows, as paths: one for each shade, the darkest first; what failed is always seen. */
function shaded(covers, kind, topOf, left, wide) {
  const [offset, tall] = ROW_PARTS[kind], paths = new Map();
  const shadeOf = (share) => (share <= 0 ? 0 : kind === "bad" ? SHADES : Math.min(Math.max(Math.round(share * SHADES), 1), SHADES));
  for (const [worker, cover] of covers) {
    for (let first = 0, end; first < cover.length; first = end) {
      const shade = shadeOf(cover[first]);
      for (end = first + 1; end < cover.length && shadeOf(cover[end]) === shade;) end += 1;
      if (!shade) continue;
      if (!paths.has(shade)) paths.set(shade, []);
      const width = ((end - first) * wide).toFixed(1);
      paths.get(shade).push(`M${(left + first * wide).toFixed(1)} ${topOf(worker) + offset}h${width}v${tall}h-${width}Z`);
    }
  }
  return [...paths].sort((a, b) => b[0] - a[0]).map(([shade, parts]) =>
    s("path", { class: "fill " + kind, "fill-opacity": shade < SHADES && shade / SHADES, d: parts.join("") }));
}

/** A text without its middle, where it is too long: names differ at their ends. */
function shorten(text, length) {
  const half = Math.max(Math.floor((length - 1) / 2), 2);
  return text.length > length ? text.slice(0, half) + "…" + text.slice(-half) : text;
}

/** Seconds between two times that intervals cover. */
function covered(intervals, from, to) {
  let total = 0, end = from;
  for (const [begin, finish] of [...intervals].sort((a, b) => a[0] - b[0])) {
    const a = Math.max(begin, end), b = Math.min(finish, to);
    if (b > a) total += b - a;
    end = Math.max(end, b);
  }
  return total;
}

/** Shares of one whole, side by side. */
function shares(parts, label) {
  let at = 0;
  return s("svg", { class: "shares", viewBox: "0 0 100 8", preserveAspectRatio: "none", role: "img", "aria-label": label },
    parts.map(([kind, share]) => {
      const rect = s("rect", { class: "fill " + kind, x: (at * 100).toFixed(2), y: 0, width: Math.max(share * 100, 0).toFixed(2), height: 8 });
      at += share;
      return rect;
    }), s("title", {}, label));
}

/** A tip beside the pointer, made of text alone. */
function showTip(event) {
  const tip = document.getElementById("tip");
  const svg = event.target.closest ? event.target.closest("svg[data-chart]") : null;
  for (const cross of document.querySelectorAll(".cross")) {
    if (!svg || !svg.contains(cross)) { cross.setAttribute("x1", -10); cross.setAttribute("x2", -10); }
  }
  const box = svg && svg.getBoundingClientRect(), ask = svg && Chart.hover.get(svg.dataset.chart);
  const scale = svg ? svg.viewBox.baseVal.width / box.width : 1;
  const found = ask && ask((event.clientX - box.left) * scale, (event.clientY - box.top) * scale);
  tip.hidden = !found;
  if (!found) return;
  const cross = svg.querySelector(".cross");
  cross.setAttribute("x1", found.x);
  cross.setAttribute("x2", found.x);
  tip.replaceChildren(...found.lines.map((line) => (typeof line === "string" ? h("div", {}, line)
    : h("div", { class: "pair" }, h("span", {}, line[0] && h("i", { class: "swatch " + line[0] }), line[1]), h("b", {}, line[2])))));
  const wide = tip.offsetWidth, x = event.clientX + 14 + wide > innerWidth ? event.clientX - 14 - wide : event.clientX + 14;
  tip.style.left = Math.max(x, 4) + "px";
  tip.style.top = Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 4) + "px";
}
document.addEventListener("pointermove", showTip);
document.addEventListener("pointerdown", showTip);
document.addEventListener("scroll", () => { document.getElementById("tip").hidden = true; }, { passive: true });
