// Elements, and their texts and attributes. A text or an attribute is only set if it is
// another one, so that selections, focus and tooltips stay. Texts from the network are
// never markup.

const svgSpace = "http://www.w3.org/2000/svg";

export const $ = id => document.getElementById(id);

/** el makes an element of HTML. */
export function el(tag, attributes = {}, ...children) {
  return build(document.createElement(tag), attributes, children);
}

/** svg makes an element of SVG. */
export function svg(tag, attributes = {}, ...children) {
  return build(document.createElementNS(svgSpace, tag), attributes, children);
}

function build(e, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) setAttribute(e, name, value);
  e.append(...children);
  return e;
}

/** setText sets the text of an element. */
export function setText(e, text) {
  text = String(text);
  if (e.textContent !== text) e.textContent = text;
}

/** setAttribute sets an attribute, or removes it if the value is null. */
export function setAttribute(e, name, value) {
  if (value === null || value === undefined) {
    if (e.hasAttribute(name)) e.removeAttribute(name);
  } else if (e.getAttribute(name) !== String(value)) {
    e.setAttribute(name, value);
  }
}

/** setHidden hides or shows an element. */
export function setHidden(e, hidden) {
  if (e.hidden !== hidden) e.hidden = hidden;
}

// Characters that are not seen, or that change the order of others.
const unseen = /[\p{C}\p{Zl}\p{Zp}]/gu;

/** visible returns a text from the network with its unseen characters written out. */
export function visible(text) {
  return String(text).replace(unseen, c => `\\u{${c.codePointAt(0).toString(16)}}`);
}
