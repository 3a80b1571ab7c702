// Buttons, keys and words around the picture. What they do, the viewer knows.

import { reasonText } from './footage.js';
import { clock, duration, MINUTE, SECOND, weekday } from './time.js';

const $ = (id) => document.getElementById(id);
const STEP = 10 * SECOND;
const MUTED = 'dsn.muted';
const QUALITY = 'dsn.quality';

export class Controls {
  #viewer;
  #video;
  #more = '';
  #until = null;
  #gaps = [];
  #fade = null;

  constructor(viewer) {
    this.#viewer = viewer;
    this.#video = viewer.video;
    const act = {
      play: () => viewer.toggle(),
      video: () => viewer.toggle(),
      back: () => viewer.step(-STEP),
      forward: () => viewer.step(STEP),
      live: () => viewer.live(),
      mute: () => this.#mute(),
      full: () => this.#full(),
      retry: () => viewer.player.retry(),
      zoom: ({ target }) => target.value && this.#zoom(target),
      gaps: (event) => this.#gap(event, (gap) => viewer.goTo(gap.from - STEP / 2)),
    };
    for (const [id, run] of Object.entries(act)) $(id).addEventListener('click', run);
    viewer.player.quality = localStorage.getItem(QUALITY) ?? '';
    $('quality').addEventListener('change', ({ target }) => {
      viewer.player.quality = target.value;
      localStorage.setItem(QUALITY, target.value);
    });
    $('speed').addEventListener('change', ({ target }) => this.speed(target.value));
    const listen = (target, kinds, run) => kinds.forEach((kind) => target.addEventListener(kind, run));
    // The pointer that leaves must not take away what the focus shows.
    const hint = (target) => this.#gap({ target }, (gap) => viewer.timeline.hint((gap.from + gap.to) / 2));
    listen($('gaps'), ['focusin', 'pointerover'], ({ target }) => hint(target));
    listen($('gaps'), ['focusout', 'pointerout'], () => {
      viewer.timeline.hint(null);
      hint(document.activeElement);
    });
    listen(this.#video, ['play', 'pause', 'emptied', 'volumechange'], () => this.#buttons());
    document.addEventListener('keydown', (event) => this.#key(event));
    setInterval(() => this.#countdown(), SECOND / 2);
    // Muted is what every browser lets begin by itself; whoever wanted sound before has allowed it.
    this.#video.muted = localStorage.getItem(MUTED) !== 'no';
    this.#buttons();
  }

  /** What stands over the picture: `{kind, text, more, retryAt}`; nothing while pictures move. */
  show({ kind, text = '', more = '', retryAt = null }) {
    const busy = kind === 'opening' || (kind === 'waiting' && !text);
    const words = busy ? 'Loading…' : kind === 'paused' ? 'Press play to start.' : text;
    $('message').hidden = !words;
    $('message').classList.toggle('busy', busy);
    $('spinner').hidden = !busy && kind !== 'waiting';
    $('retry').hidden = retryAt === null;
    // Set again it would be read aloud again.
    if ($('message-text').textContent !== words) $('message-text').textContent = words;
    this.#more = more;
    this.#until = retryAt;
    this.#countdown();
  }

  /** A sentence under the picture that goes by itself. */
  notice(text) {
    clearTimeout(this.#fade);
    $('notice').textContent = text;
    this.#fade = setTimeout(() => ($('notice').textContent = ''), 12 * SECOND);
  }

  mode(kind) {
    $('live').setAttribute('aria-pressed', kind === 'live');
    $('speed').disabled = kind === 'live';
  }

  /** Wall-clock time of the picture. */
  time(moment, kind) {
    $('clock').textContent = moment ? clock(moment) : '––:––:––';
    $('clock').dateTime = moment ? new Date(moment).toISOString() : '';
    const behind = Date.now() - moment;
    $('date').textContent = !moment
      ? ''
      : kind === 'live' && behind < 2 * MINUTE
        ? `${Math.max(Math.round(behind / SECOND), 0)} s ago`
        : weekday(moment);
  }

  /** What one may choose from, and what is chosen; nothing to choose from is not shown. */
  qualities(names, chosen) {
    const menu = $('quality');
    menu.parentElement.hidden = names.length < 2;
    const options = ['', ...names].map((name) => new Option(name || 'Auto', name));
    menu.replaceChildren(...options);
    menu.value = chosen;
  }

  speed(rate) {
    this.#video.defaultPlaybackRate = this.#video.playbackRate = $('speed').value = Number(rate);
  }

  /** The day's gaps as a list: a bar says little to a screen reader, and a finger cannot hover. */
  gaps(gaps) {
    if (JSON.stringify(gaps) === JSON.stringify(this.#gaps)) return;
    this.#gaps = gaps;
    $('gaps').hidden = gaps.length === 0;
    $('gaps').querySelector('summary').textContent =
      gaps.length === 1 ? '1 gap on this day' : `${gaps.length} gaps on this day`;
    const rows = gaps.map((gap, index) => {
      const row = $('gap').content.cloneNode(true);
      const words = [clock(gap.from), duration(gap.to - gap.from), reasonText(gap)];
      row.querySelectorAll('span').forEach((part, i) => (part.textContent = words[i]));
      row.querySelector('button').value = index;
      return row;
    });
    $('gaps')
      .querySelector('ol')
      .replaceChildren(...rows);
  }

  #gap({ target }, run) {
    const button = target.closest('#gaps button');
    if (button) run(this.#gaps[button.value]);
  }

  #countdown() {
    const left = this.#until && Math.max(Math.ceil((this.#until - Date.now()) / SECOND), 0);
    const again = left === null ? '' : left ? `Trying again in ${left} s.` : 'Trying again…';
    $('message-more').textContent = [this.#more, again].filter(Boolean).join('\n');
  }

  #zoom(button) {
    for (const other of $('zoom').children) other.setAttribute('aria-pressed', other === button);
    this.#viewer.timeline.zoom(Number(button.value));
  }

  #mute() {
    this.#video.muted = !this.#video.muted;
    localStorage.setItem(MUTED, this.#video.muted ? 'yes' : 'no');
  }

  #full() {
    if (document.fullscreenElement) document.exitFullscreen();
    else if ($('stage').requestFullscreen) $('stage').requestFullscreen();
    // iPhones only put the video itself on the whole screen.
    else this.#video.webkitEnterFullscreen?.();
  }

  #buttons() {
    const { paused, muted } = this.#video;
    const label = (id, text, key, icon) => {
      $(id).ariaLabel = text;
      $(id).title = `${text} (${key})`;
      $(id).querySelector('use').setAttribute('href', `#i-${icon}`);
    };
    label('play', paused ? 'Play' : 'Pause', 'Space', paused ? 'play' : 'pause');
    label('mute', muted ? 'Sound on' : 'Sound off', 'M', muted ? 'muted' : 'sound');
  }

  #key(event) {
    const { key, target, shiftKey } = event;
    const other =
      $('viewer').hidden || event.ctrlKey || event.metaKey || event.altKey || target.closest('input, select');
    // The space bar presses the button that has the focus.
    if (other || (key === ' ' && target.closest('button, a, summary'))) return;
    const step = shiftKey ? MINUTE : STEP;
    const act = {
      ' ': () => this.#viewer.toggle(),
      arrowleft: () => this.#viewer.step(-step),
      arrowright: () => this.#viewer.step(step),
      l: () => this.#viewer.live(),
      m: () => this.#mute(),
      f: () => this.#full(),
    }[key.toLowerCase()];
    if (!act) return;
    event.preventDefault();
    act();
  }
}
