"use strict";
// Elements from data. Text is only ever text: nothing here parses HTML, and the page's policy forbids it.

const SVG = "http://www.w3.org/2000/svg";

function make(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (child instanceof Node ? child : String(child))));
  return element;
}

/** An HTML element. */
const h = (tag, attributes, ...children) => make(document.createElement(tag), attributes, children);
/** An SVG element. */
const s = (tag, attributes, ...children) => make(document.createElementNS(SVG, tag), attributes, children);

/** Turn one tree into another and keep what is the same, so that focus, scrolling and hovering stay. */
function morph(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName || keyOf(old) !== keyOf(fresh)) {
    old.replaceWith(fresh);
    return;
  }
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  const before = [...old.childNodes], after = [...fresh.childNodes];
  after.forEach((child, i) => (i < before.length ? morph(before[i], child) : old.append(child)));
  before.slice(after.length).forEach((child) => child.remove());
}

const keyOf = (node) => (node.nodeType === Node.ELEMENT_NODE ? node.getAttribute("data-key") : null);

// Numbers for people.

const known = (value) => value !== null && value !== undefined;
const or = (value, text = "–") => (known(value) ? text : "–");

const Format = {
  count: (value) => (known(value) ? Math.round(value).toLocaleString("en") : "–"),
  short(value) {
    if (!known(value)) return "–";
    for (const [unit, size] of [["G", 1e9], ["M", 1e6], ["k", 1e3]]) {
      if (Math.abs(value) >= size * 0.9995) return significant(value / size) + " " + unit;
    }
    return Math.abs(value) >= 100 || Number.isInteger(value) ? String(Math.round(value)) : significant(value);
  },
  bytes(value) {
    if (!known(value)) return "–";
    for (const [unit, size] of [["TB", 1e12], ["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
      if (value >= size * 0.9995) return significant(value / size) + " " + unit;
    }
    return Math.round(value) + " B";
  },
  number(value) {
    if (!known(value)) return "–";
    const size = Math.abs(value);
    if (!size) return "0";
    if (size < 1e-3 || size >= 1e7) return value.toExponential(2);
    return size >= 1000 ? Math.round(value).toLocaleString("en") : significant(value);
  },
  /** Never 100 before it is. */
  percent(value) {
    if (!known(value)) return "–";
    return (value > 0 && value < 0.0995 ? (100 * value).toFixed(1) : Math.floor(100 * value + 1e-9)) + " %";
  },
  seconds(value) {
    if (!known(value)) return "–";
    if (!value) return "0 s";
    if (value < 0.9995e-3) return significant(value * 1e6) + " µs";
    if (value < 0.9995) return significant(value * 1e3) + " ms";
    if (value < 9.995) return significant(value) + " s";
    const whole = Math.round(value);
    if (whole < 100) return whole + " s";
    const [large, small, names] = whole < 3600 ? [60, 1, ["min", "s"]] : whole < 172800 ? [3600, 60, ["h", "min"]] : [86400, 3600, ["d", "h"]];
    const rest = Math.floor((whole % large) / small);
    return Math.floor(whole / large) + " " + names[0] + (rest ? " " + rest + " " + names[1] : "");
  },
  clock: (value) => new Date(value * 1000).toLocaleTimeString("en-GB"),
  day: (value) => new Date(value * 1000).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" }),
};

/** Three digits that say something. */
function significant(value) {
  const size = Math.abs(value);
  const digits = size >= 99.95 ? 0 : size >= 9.995 ? 1 : size >= 0.9995 || !size ? 2 : 2 - Math.floor(Math.log10(size));
  return value.toFixed(Math.min(digits, 20));
}

const plural = (number, one, many) => Format.count(number) + " " + (number === 1 ? one : many || one + "s");
