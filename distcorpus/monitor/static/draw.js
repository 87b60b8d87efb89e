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
    if (size && (size < 1e-3 || size >= 1e7)) return value.toExponential(2);
    return size >= 1000 ? Math.round(value).toLocaleString("en") : significant(value);
  },
  percent: (value) => (known(value) ? (100 * value).toFixed(value > 0 && value < 0.0995 ? 1 : 0) + " %" : "–"),
  seconds(value) {
    if (!known(value)) return "–";
    if (value < 0.9995e-3) return significant(value * 1e6) + " µs";
    if (value < 0.9995) return significant(value * 1e3) + " ms";
    if (value < 10) return significant(value) + " s";
    if (value < 100) return Math.round(value) + " s";
    const minutes = Math.floor(value / 60);
    if (minutes < 60) return minutes + " min " + Math.round(value % 60) + " s";
    const hours = Math.floor(minutes / 60);
    return hours < 48 ? hours + " h " + (minutes % 60) + " min" : Math.floor(hours / 24) + " d " + (hours % 24) + " h";
  },
  clock: (value) => new Date(value * 1000).toLocaleTimeString("en-GB"),
  day: (value) => new Date(value * 1000).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" }),
};

function significant(value) {
  const digits = Math.abs(value) >= 99.95 ? 0 : Math.abs(value) >= 9.995 ? 1 : 2;
  return value.toFixed(digits);
}

const plural = (number, one, many) => Format.count(number) + " " + (number === 1 ? one : many || one + "s");
