// The list of cameras: a grid at home, a column (on a phone a row) beside a picture. Which of them it is, the style
// sheet decides.

import { format } from './route.js';
import { clock, weekday } from './time.js';

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

export const message = (camera) => camera.message ?? '';
const last = ({ newest }) => (newest ? `Last footage ${weekday(Date.parse(newest))}, ${clock(newest, false)}` : '');
export const placeOf = ({ site, namespace }) => [site, namespace].filter(Boolean).join(' · ');
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
    if (focused)
      $('cameras')
        .querySelector(`a[href="${CSS.escape(focused)}"]`)
        ?.focus({ preventScroll: true });
  }

  #item(camera) {
    const item = $('camera').content.cloneNode(true);
    const [link, put] = [item.querySelector('a'), (part, text) => (item.querySelector(part).textContent = text)];
    const { level, word } = stateOf(camera);
    link.href = format(camera);
    if (same(camera, this.#current)) link.setAttribute('aria-current', 'page');
    put('.name', camera.name);
    put('.place', placeOf(camera));
    put('.why', message(camera) || (camera.live ? '' : last(camera)));
    put('.state', word);
    item.querySelector('.state').classList.add(level);
    return item;
  }
}
