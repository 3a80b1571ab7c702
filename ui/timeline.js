// The bar: a day, or a part of it, with footage, gaps and the current position. Draws, and says what was picked; what
// happens then is the viewer's business. SVG, so that the style sheet colours it in both schemes.

import { gapAt, reasonText, spanAt } from './footage.js';
import { clock, contains, duration, HOUR, MINUTE, SECOND } from './time.js';

const HEIGHT = 72;
const TRACK = { y: 10, height: 36 };
const FOOT = TRACK.y + TRACK.height;
const STEPS = [10 * SECOND, 30 * SECOND, ...[1, 2, 5, 10, 15, 30, 60, 120, 180, 360].map((n) => n * MINUTE)];
/** Pixels that a tick's label needs. */
const LABEL = 52;

export class Timeline {
  #layers = {};
  #day = { from: 0, to: 1 };
  #view = this.#day;
  #length = Infinity;
  #cover = null;
  #range = null;
  #cursor = null;
  #dragged = null;

  constructor(svg, tip, onPick) {
    Object.assign(this, { svg, tip, onPick });
    for (const name of ['ground', 'ticks', 'hover', 'cursor']) this.#layers[name] = draw(svg, 'g', { class: name });
    for (const name of ['hover', 'cursor']) draw(this.#layers[name], 'line', { y1: 4, y2: FOOT });
    draw(this.#layers.cursor, 'path', { d: 'M-6 0h12v4l-6 7l-6-7z' });
    for (const kind of ['down', 'move', 'up', 'cancel', 'leave'])
      svg.addEventListener(`pointer${kind}`, (event) => this.#pointer(kind, event));
    this.#put('hover', null);
    svg.addEventListener('focus', () => this.#speak());
    new ResizeObserver(() => this.#render()).observe(svg);
  }

  set(day, cover, range) {
    const other = day.from !== this.#day.from;
    this.#day = day;
    this.#cover = cover ?? { spans: [], gaps: [] };
    this.#range = range;
    if (other) this.zoom(this.#length);
    else this.#render();
  }

  /** Length of the visible part, around the current position; `Infinity` is the whole day. */
  zoom(length, around = this.#cursor) {
    const { from, to } = this.#day;
    const middle =
      around !== null && contains(this.#day, around)
        ? around
        : (Math.max(this.#view.from, from) + Math.min(this.#view.to, to)) / 2;
    this.#length = length;
    const visible = Math.min(length, to - from);
    const begin = Math.min(Math.max(middle - visible / 2, from), to - visible);
    this.#view = { from: begin, to: begin + visible };
    this.#render();
  }

  /** Moment of the current picture, or null. The visible part follows it; `aloud` after a key, for screen readers. */
  cursor(moment, aloud = false) {
    const followed = this.#cursor !== null && contains(this.#view, this.#cursor) && this.#dragged === null;
    this.#cursor = moment;
    if (followed && moment !== null && !contains(this.#view, moment) && contains(this.#day, moment))
      this.zoom(this.#length);
    else this.#place();
    if (aloud) this.#speak();
  }

  /** Says what is at a moment, above the bar; null hides it. */
  hint(moment) {
    const visible = moment !== null && contains(this.#view, moment);
    this.tip.hidden = !visible;
    this.#put('hover', moment);
    if (!visible) return;
    this.tip.textContent = this.#describe(moment);
    const half = this.tip.offsetWidth / 2;
    this.tip.style.left = `${Math.min(Math.max(this.#x(moment), half), Math.max(this.#width - half, half))}px`;
  }

  get #width() {
    return this.svg.clientWidth || 1;
  }

  get #perPixel() {
    return (this.#view.to - this.#view.from) / this.#width;
  }

  #x(moment) {
    return (moment - this.#view.from) / this.#perPixel;
  }

  #describe(moment) {
    // Three pixels beside a gap still mean the gap.
    const gap = gapAt(this.#cover, moment, 3 * this.#perPixel);
    if (gap) return `${clock(gap.from)}, ${duration(gap.to - gap.from)} missing · ${reasonText(gap)}`;
    if (spanAt(this.#cover, moment)) return clock(moment);
    return `${clock(moment)} · ${moment > Date.now() ? 'not yet' : 'no footage'}`;
  }

  #render() {
    const { ground, ticks } = this.#layers;
    this.svg.setAttribute('viewBox', `0 0 ${this.#width} ${HEIGHT}`);
    ground.replaceChildren();
    this.#rect(ground, this.#view, 'track');
    this.#rect(ground, { from: Date.now(), to: this.#day.to }, 'future');
    for (const span of this.#cover?.spans ?? []) this.#rect(ground, span, 'footage', 1);
    // A gap of a second must be seen on a whole day's bar.
    for (const gap of this.#cover?.gaps ?? []) this.#rect(ground, gap, 'gap', 2);
    if (this.#range) this.#rect(ground, this.#range, 'chosen', 2);
    ticks.replaceChildren();
    const step = STEPS.find((s) => s / this.#perPixel >= LABEL) ?? STEPS.at(-1);
    for (let at = this.#day.from; at <= this.#view.to; at = next(at, step))
      if (at >= this.#view.from) this.#tick(ticks, at, step);
    this.#place();
  }

  #rect(layer, { from, to }, kind, least = 0) {
    if (to <= this.#view.from || from >= this.#view.to) return;
    const x = Math.max(this.#x(from), 0);
    draw(layer, 'rect', { class: kind, x, width: Math.max(Math.min(this.#x(to), this.#width) - x, least), ...TRACK });
  }

  #tick(layer, at, step) {
    const x = this.#x(at);
    draw(layer, 'line', { x1: x, x2: x, y1: FOOT, y2: FOOT + 5 });
    const anchor = x < LABEL / 2 ? 'start' : x > this.#width - LABEL / 2 ? 'end' : 'middle';
    draw(layer, 'text', { x, y: FOOT + 19, 'text-anchor': anchor }).textContent =
      at === this.#day.to ? '24:00' : clock(at, step < MINUTE);
  }

  #put(name, moment) {
    const visible = moment !== null && contains(this.#view, moment);
    this.#layers[name].toggleAttribute('hidden', !visible);
    if (visible) this.#layers[name].setAttribute('transform', `translate(${this.#x(moment)} 0)`);
  }

  #place() {
    this.#put('cursor', this.#dragged ?? this.#cursor);
    // A screen reader would read each second aloud: while the bar has the focus only keys change its value.
    if (document.activeElement !== this.svg) this.#speak();
  }

  #speak() {
    const at = this.#cursor ?? this.#view.from;
    const since = (moment) => Math.round((moment - this.#day.from) / SECOND);
    const values = { min: 0, max: since(this.#day.to), now: since(at), text: this.#cover ? this.#describe(at) : '' };
    for (const [name, value] of Object.entries(values)) this.svg.setAttribute(`aria-value${name}`, value);
  }

  /** Press, drag, let go: only what is let go is picked. A finger has no hover, so its hint goes with it. */
  #pointer(kind, event) {
    const x = event.clientX - this.svg.getBoundingClientRect().left;
    const moment = this.#view.from + Math.min(Math.max(x, 0), this.#width - 1) * this.#perPixel;
    const picked = kind === 'up' && this.#dragged !== null;
    if (kind === 'down' && event.button === 0) this.svg.setPointerCapture(event.pointerId);
    if (kind === 'down' ? event.button === 0 : kind === 'move' && this.#dragged !== null) this.#dragged = moment;
    else if (kind !== 'leave') this.#dragged = null;
    this.hint(
      kind === 'leave' || kind === 'cancel' || (kind === 'up' && event.pointerType !== 'mouse') ? null : moment,
    );
    this.#place();
    if (picked) this.onPick(moment);
  }
}

/** Hours are counted by the wall clock: on the day of a clock change one of them is missing or double. */
function next(at, step) {
  if (step < HOUR) return at + step;
  const d = new Date(at);
  return Math.max(
    new Date(d.getFullYear(), d.getMonth(), d.getDate(), d.getHours() + step / HOUR).getTime(),
    at + step / 2,
  );
}

function draw(parent, name, attributes) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return parent.appendChild(element);
}
