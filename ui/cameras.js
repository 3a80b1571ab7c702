// The list of cameras: a grid at home, a column (on a phone a row) beside a picture. Which of them it is, the style
// sheet decides.

import { format } from './route.js';

const $ = (id) => document.getElementById(id);

/** The capture instance's phase in a word for people; an unknown one is shown as it is. */
const STATES = {
  Running: ['good', 'Recording'],
  Starting: ['fair', 'Starting'],
  Failing: ['bad', 'No picture'],
  Paused: ['idle', 'Paused'],
  Draining: ['idle', 'Stopping'],
  Drained: ['idle', 'Stopped'],
  Unknown: ['idle', 'Not recorded'],
};

export function stateOf({ state, deleted }) {
  const [level, word] = deleted ? ['idle', 'Removed'] : (STATES[state] ?? ['idle', state || 'Not recorded']);
  return { level, word };
}

export const message = (camera) => camera?.message ?? camera?.problem?.message ?? '';
export const same = (a, b) => a && b && a.namespace === b.namespace && a.name === b.name;

export class Cameras {
  #all = null;
  #current = null;
  #shown = '';

  set(cameras) {
    const by = (c) => `${c.site ?? ''}\n${c.name}\n${c.namespace}`;
    this.#all = [...cameras].sort((a, b) => by(a).localeCompare(by(b), undefined, { numeric: true }));
    this.#render();
  }

  /** Marks the camera whose picture is shown, or none. */
  mark(camera) {
    this.#current = camera;
    this.#render();
    $('cameras').querySelector('[aria-current]')?.scrollIntoView({ block: 'nearest', inline: 'nearest' });
  }

  find = (wanted) => this.#all?.find((c) => same(c, wanted));

  #render() {
    if (!this.#all) return;
    $('empty').hidden = this.#all.length > 0;
    // Polled lists are mostly the same: leave focus and scrolling alone then.
    const shown = JSON.stringify([this.#all, this.#current]);
    if (shown === this.#shown) return;
    this.#shown = shown;
    const focused = document.activeElement?.getAttribute('href');
    $('cameras').replaceChildren(...this.#all.map((c) => this.#item(c)));
    if (focused) $('cameras').querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  }

  #item(camera) {
    const { level, word } = stateOf(camera);
    const link = element('a', { href: format(camera), class: 'camera' });
    if (same(camera, this.#current)) link.setAttribute('aria-current', 'page');
    link.append(
      element('span', { class: 'name' }, camera.name),
      element('span', { class: 'place' }, [camera.site, camera.namespace].filter(Boolean).join(' · ')),
      element('span', { class: `state ${level}` }, word),
    );
    if (message(camera)) link.append(element('span', { class: 'why' }, message(camera)));
    const item = document.createElement('li');
    item.append(link);
    return item;
  }
}

function element(name, attributes, text = '') {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}
