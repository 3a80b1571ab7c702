// One camera: its picture, its day, what was asked for. Decides which playlist shows a moment and joins player, bar and
// controls. Not here: how a playlist is played, how the bar is drawn.

import * as api from './api.js';
import { message, placeOf, same, stateOf } from './cameras.js';
import { Controls } from './controls.js';
import { following, gapAt, reasonText, replay, snap, source } from './footage.js';
import { Player } from './player.js';
import { format } from './route.js';
import {
  clock,
  contains,
  dateTimeValue,
  dateValue,
  dayOf,
  fromValue,
  HOUR,
  MINUTE,
  SECOND,
  shiftDay,
  zone,
} from './time.js';
import { Timeline } from './timeline.js';

const $ = (id) => document.getElementById(id);
const POLL = 10 * SECOND;
/** What is this young may be missing from the coverage only because it was asked for before. */
const FRESH = MINUTE;
/** A live picture that was held longer is no longer in the live playlist. */
const HELD = 8 * SECOND;
const LONGEST = 24 * HOUR;

export class Viewer {
  camera = null;
  #day = dayOf(Date.now());
  #cover = null;
  #range = null;
  /** Where a jump goes that is still under way. */
  #target = null;
  /** The picture that was paused, and since when. */
  #held = null;
  /** The moment shown last, to notice midnight. */
  #seen = null;
  /** End of the replay that ended last. */
  #ended = 0;
  /** Counts what was asked for: an answer that comes late is for another question. */
  #turn = 0;

  constructor(expired) {
    this.expired = expired;
    this.video = $('video');
    this.player = new Player(this.video, {
      state: (state) => this.#state(state),
      // DVR waits at a hole that replay steps over.
      outside: ({ kind, at }) => (kind === 'dvr' ? this.#open(replay(at, Date.now())) : this.#absent()),
      ended: (moment) => this.#end(moment),
      skipped: (from, to) =>
        this.controls.notice(`The picture from ${clock(from)} to ${clock(to)} is missing or damaged.`),
      expired,
      qualities: (names, chosen) => this.controls.qualities(names, chosen),
      without: (name) => this.controls.notice(`There is no picture “${name}” here. Showing another quality.`),
    });
    this.timeline = new Timeline($('timeline'), $('tip'), (moment) => this.goTo(moment));
    this.controls = new Controls(this);
    this.video.addEventListener('timeupdate', () => this.#tick());
    setInterval(() => {
      if (document.hidden) return;
      this.#refresh();
      this.player.renew();
    }, POLL);
    $('previous').addEventListener('click', () => this.#turnTo(shiftDay(this.#day, -1)));
    $('next').addEventListener('click', () => this.#turnTo(shiftDay(this.#day, 1)));
    $('day').addEventListener('change', ({ target }) => target.value && this.#turnTo(dayOf(fromValue(target.value))));
    $('range').addEventListener('submit', (event) => this.#submit(event));
  }

  /** Shows a camera: live, at a moment, or a range. One that was removed has no live picture any more. */
  show(camera, { at, range }) {
    if (!same(camera, this.camera)) {
      this.#cover = null;
      this.controls.notice('');
    }
    $('viewer').hidden = false;
    this.describe(camera);
    $('name').focus({ preventScroll: true });
    at ??= camera.deleted && camera.newest ? Date.parse(camera.newest) - MINUTE : null;
    if (range) this.#play(range);
    else if (at) this.goTo(at);
    else this.live();
  }

  close() {
    this.#turn++;
    this.player.close();
    this.camera = null;
    $('viewer').hidden = true;
  }

  /** Name, place and state as the list says now. */
  describe(camera) {
    this.camera = camera;
    const { level, word } = stateOf(camera);
    $('name').textContent = camera.name;
    $('place').textContent = placeOf(camera);
    $('state').className = `state ${level}`;
    $('state').textContent = camera.state ? word : '';
  }

  get mode() {
    return this.player.source?.kind;
  }

  get moment() {
    return this.#target ?? this.#held?.moment ?? this.player.moment;
  }

  /** What another camera is to show: the same moment, unless this one is live. */
  get position() {
    if (!this.camera || this.mode === 'live') return {};
    return this.#range ? { range: this.#range } : { at: this.moment };
  }

  live() {
    this.#turn++;
    this.#range = this.#held = this.#target = null;
    this.controls.speed(1);
    this.#open({ kind: 'live' });
    this.#turnTo(dayOf(Date.now()));
    this.#suggest(Date.now() - 10 * MINUTE);
    this.#remember({});
  }

  /** To a moment of any day; where nothing was recorded, to what follows. */
  async goTo(wanted, play = true) {
    const turn = ++this.#turn;
    const now = Date.now();
    if (source(wanted, now).kind === 'live') return this.live();
    this.#held = null;
    this.#target = wanted;
    this.#tick();
    if (!contains(this.#day, wanted) || !this.#cover) await this.#turnTo(dayOf(wanted));
    if (turn !== this.#turn) return;
    const moment = this.#cover && wanted < now - FRESH ? snap(this.#cover, wanted) : wanted;
    if (moment === null) return this.#absent();
    if (Math.abs(moment - wanted) > 2 * SECOND) {
      const gap = gapAt(this.#cover, wanted);
      this.controls.notice(
        `No footage at ${clock(wanted)}${gap ? ` (${reasonText(gap)})` : ''}. Showing ${clock(moment)}.`,
      );
    }
    if (this.#range && !contains(this.#range, moment)) this.#range = null;
    this.#target = moment;
    // The live playlist is a few segments long: a moment in it would have left it at once.
    if (this.mode === 'live' || !this.player.seek(moment)) this.#open({ ...source(moment, now), play });
    else if (play) this.player.play();
    this.#suggest(moment);
    this.#remember(this.#range ? { range: this.#range } : { at: moment });
    this.#draw();
  }

  toggle() {
    const held = this.#held;
    this.#held = null;
    if (!this.video.paused) {
      this.#held = { moment: this.player.moment, since: Date.now() };
      this.video.pause();
    } else if (held?.moment && this.mode !== 'replay' && Date.now() - held.since > HELD) this.goTo(held.moment);
    else this.player.play();
  }

  step(delta) {
    const moment = this.moment;
    if (moment === null) return;
    this.goTo(moment + delta, !this.video.paused);
    this.timeline.cursor(moment + delta, true);
  }

  #open(wanted) {
    this.#ended = 0;
    this.player.open({ ...wanted, url: api.playlist(this.camera, wanted) });
    this.controls.mode(wanted.kind);
    this.#tick();
  }

  #play(range) {
    this.#turn++;
    this.#range = range;
    this.#held = null;
    this.controls.notice('');
    this.#target = range.from;
    this.#open({ kind: 'replay', at: range.from, ...range });
    this.#suggest(range.from, range.to);
    this.#turnTo(dayOf(range.from));
    this.#remember({ range });
  }

  #submit(event) {
    event.preventDefault();
    const [from, to] = [fromValue($('from').value), fromValue($('to').value)];
    const wrong = [
      [!from || !to, 'Enter both times.'],
      [to <= from, 'The end must be after the begin.'],
      [from >= Date.now(), 'This lies in the future.'],
      [to - from > LONGEST, 'At most 24 hours at once.'],
    ].find(([is]) => is);
    $('range-error').textContent = wrong?.[1] ?? '';
    if (!wrong) this.#play({ from, to: Math.min(to, Date.now()) });
  }

  #absent() {
    this.#target = null;
    this.player.close();
    this.controls.mode(null);
    this.controls.show({ text: 'No footage at this time.' });
  }

  /** A replay has come to its end: a range is over, anything else goes on with what follows. */
  #end(moment) {
    if (this.#range) return this.controls.show({ text: 'End of the range. Press play to watch it again.' });
    const next = moment && this.#cover && following(this.#cover, moment + SECOND);
    // The same end twice: the server has less than the coverage says.
    const stuck = Math.abs(moment - this.#ended) < 2 * SECOND;
    if (next && !stuck) this.goTo(next).then(() => (this.#ended = moment));
    else if (contains(this.#day, Date.now()) && !this.camera.deleted) this.live();
    else this.controls.show({ text: 'No later footage on this day.' });
  }

  #state(state) {
    if (state.kind === 'playing') this.#target = null;
    const last = this.player.moment;
    const stands = state.kind === 'waiting' && this.mode === 'live' && last;
    // What does not come is the camera's fault only where it is said to be.
    const wanted = this.camera.live ? 'the next one' : 'the camera';
    if (stands) state.text = `No new picture since ${clock(last)}. Waiting for ${wanted}…`;
    this.controls.show({ ...state, more: stands || state.live ? message(this.camera) : '' });
  }

  /** Four times a second while pictures move. */
  #tick() {
    const moment = this.moment;
    this.controls.time(moment, this.mode);
    // Over midnight the bar goes along; a day that somebody turned to stays.
    if (moment && this.#seen && contains(this.#day, this.#seen) && !contains(this.#day, moment))
      this.#turnTo(dayOf(moment));
    this.#seen = moment;
    this.timeline.cursor(moment);
  }

  async #turnTo(day) {
    const today = dayOf(Date.now());
    if (day.from > today.from) day = today;
    if (day.from !== this.#day.from) this.#cover = null;
    this.#day = day;
    this.#draw();
    await this.#refresh(true);
  }

  /** The coverage of the day; of a day that is over only until it is there. */
  async #refresh(force = false) {
    const [camera, day] = [this.camera, this.#day];
    if (!camera || !(force || !this.#cover || contains(day, Date.now()))) return;
    try {
      const cover = await api.footage(camera, day);
      if (!same(camera, this.camera) || day.from !== this.#day.from) return;
      this.#cover = cover;
    } catch (error) {
      if (error instanceof api.Expired) return this.expired();
      // The banner speaks of a server that is away; what is drawn stays until it is back.
      if (error.status === 404) this.controls.notice('There is no such camera, or it is not one of yours.');
    }
    this.#draw();
  }

  #draw() {
    const today = dateValue(Date.now());
    $('day').value = dateValue(this.#day.from);
    $('day').max = today;
    $('next').disabled = $('day').value >= today;
    $('zone').textContent = `Times in ${zone()}`;
    $('nothing').hidden = !this.#cover || this.#cover.spans.length > 0;
    this.timeline.set(this.#day, this.#cover, this.#range);
    this.controls.gaps(this.#cover?.gaps ?? []);
  }

  /** A range around what is looked at; not while somebody writes one. */
  #suggest(from, to = Math.min(from + 10 * MINUTE, Date.now())) {
    if ($('range').contains(document.activeElement)) return;
    $('from').value = dateTimeValue(from);
    $('to').value = dateTimeValue(to);
  }

  #remember(position) {
    history.replaceState(null, '', format({ ...this.camera, ...position }));
  }
}
