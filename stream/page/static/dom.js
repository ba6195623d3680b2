// Elements made by hand: text is always set as text, so that a name from outside can never become markup.

/** An element: attributes (null and false are left out, `text` is its text), then children. */
export function h(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "text") made.textContent = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** A state's shape; decoration, since the state's word always stands beside it. */
export function shape(state) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "shape");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#shape-${state === "resolved" ? "normal" : state}`);
  svg.append(use);
  return svg;
}

/** Set text only where it is another: a screen reader hears nothing of what stays the same. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Keep `parent`'s children as `items` are, one for each key: what is there is updated in its place, so that the focus
 * stays where it is; `make(item)` gives a new element, `update(element, item)` brings it up to date.
 */
export function keyed(parent, items, keyOf, make, update) {
  const there = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    let child = there.get(key);
    if (child === undefined) {
      child = make(item);
      child.dataset.key = key;
    }
    there.delete(key);
    update(child, item);
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
  }
  for (const child of there.values()) child.remove();
}

export const assetLink = (name) => `#/asset/${encodeURIComponent(name)}`;
