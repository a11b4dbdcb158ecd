// Elements without a framework.

/**
 * @typedef {string | number | Node | null | undefined | false} Child
 * @typedef {Record<string, unknown>} Properties
 */

/**
 * Makes an element. `class`, `for`, `role`, `aria-*`, `data-*` and other names with a hyphen become attributes, `on…` functions
 * become listeners, the rest become properties. Text is never read as HTML.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Properties} [properties]
 * @param {...(Child | Child[])} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.startsWith('on') && typeof value === 'function') {
      element.addEventListener(name.slice(2).toLowerCase(), /** @type {EventListener} */ (value));
    } else if (name === 'class' || name === 'for' || name === 'role' || name === 'list' || name.includes('-')) {
      if (value !== false) element.setAttribute(name, value === true && !name.startsWith('aria-') ? '' : String(value));
    } else {
      /** @type {any} */ (element)[name] = value;
    }
  }
  add(element, children);
  return element;
}

/**
 * Puts children at the end of an element; null, undefined and false are left out.
 * @param {Element} element
 * @param {(Child | Child[])[]} children
 */
export function add(element, children) {
  for (const child of children.flat()) {
    if (child === null || child === undefined || child === false) continue;
    element.append(typeof child === 'number' ? String(child) : child);
  }
}

/**
 * Replaces what is in an element.
 * @param {Element} element
 * @param {...(Child | Child[])} children
 */
export function fill(element, ...children) {
  element.replaceChildren();
  add(element, children);
}

/**
 * The element of an id, which must be there.
 * @param {string} id
 * @returns {HTMLElement}
 */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found;
}

const SVG = 'http://www.w3.org/2000/svg';

/** Lines of 24 × 24 icons, drawn for this page. @type {Record<string, string>} */
const ICONS = {
  picture: 'M4 5h16v14H4z M4 16l5-5 4 4 3-3 4 4 M15.5 9h.01',
  camera: 'M4 8h3l2-3h6l2 3h3v11H4z M12 16.5a3.2 3.2 0 1 0 0-6.4 3.2 3.2 0 0 0 0 6.4z',
  folder: 'M3.5 6h6l2 2.5h9V19h-17z',
  teach: 'M3.5 8.5L12 5l8.5 3.5L12 12z M7 10.5V16c2.5 2 7.5 2 10 0v-5.5 M20.5 9v6',
  compare: 'M4 5h6.5v14H4z M13.5 5H20v14h-6.5z',
  code: 'M8.5 7L4 12l4.5 5 M15.5 7l4.5 5-4.5 5',
  where: 'M12 19a7 7 0 1 0 0-14 7 7 0 0 0 0 14z M12 2v5 M12 17v5 M2 12h5 M17 12h5',
  close: 'M6 6l12 12 M18 6L6 18',
  copy: 'M9 9h11v11H9z M5 15H4V4h11v1',
  sun: 'M12 16.5a4.5 4.5 0 1 0 0-9 4.5 4.5 0 0 0 0 9z M12 2v2 M12 20v2 M2 12h2 M20 12h2 M5 5l1.4 1.4 M17.6 17.6L19 19 M19 5l-1.4 1.4 M6.4 17.6L5 19',
  moon: 'M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5z',
  auto: 'M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18z M12 3v18 M12 8h7.5 M12 13h9 M12 18h6',
  plus: 'M12 5v14 M5 12h14',
  check: 'M5 12.5l4.5 4.5L19 7.5',
  play: 'M7 5l12 7-12 7z',
  pause: 'M8 5v14 M16 5v14',
  trash: 'M4 7h16 M9 7V4h6v3 M6 7l1 13h10l1-13',
  search: 'M10.5 17a6.5 6.5 0 1 0 0-13 6.5 6.5 0 0 0 0 13z M15.5 15.5L20 20',
  download: 'M12 4v11 M7 10.5l5 5 5-5 M4 20h16',
  upload: 'M12 16V5 M7 9.5l5-5 5 5 M4 20h16',
  key: 'M8 15.5a4 4 0 1 0 0-8 4 4 0 0 0 0 8z M12 11.5h9 M17.5 11.5V15 M21 11.5v3',
};

/**
 * An icon that says nothing to a screen reader.
 * @param {string} name
 */
export function icon(name) {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('viewBox', '0 0 24 24');
  svg.setAttribute('class', 'icon');
  svg.setAttribute('aria-hidden', 'true');
  const path = document.createElementNS(SVG, 'path');
  path.setAttribute('d', ICONS[name] ?? '');
  svg.append(path);
  return svg;
}

/**
 * Calls a function once for many calls, when none came for `wait` ms.
 * @param {() => void} work
 * @param {number} wait
 */
export function settled(work, wait) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(work, wait);
  };
}
