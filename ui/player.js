// Plays one master playlist in the <video> and keeps it playing: hls.js where there is Media Source, the browser's own HLS
// elsewhere (older iPhones). Knows wall-clock time, says what it is doing, tries again by itself. Which playlist to play
// is the viewer's business.

import { seconds, sentence } from './api.js';
import { bearings, momentAt, nameOf, positionAt } from './footage.js';
import { MINUTE, SECOND } from './time.js';

const { Hls } = window;

/** Pictures stand still this long before it is said, and before the playlist is opened anew. */
const STILL = 6 * SECOND;
const STUCK = 25 * SECOND;
/** The catalogue is behind live by a few segments: a moment just behind the playlist's end is its end. */
const CATALOGUE_LAG = MINUTE;

/** What a status means to a person. Trying again helps against the others. */
const MEANING = {
  0: 'The server does not answer.',
  403: 'You may not watch this camera.',
  404: 'No footage at this time.',
  410: 'This footage is older than what is kept.',
  503: 'The footage cannot be reached at the moment.',
};
const FINAL = [400, 403, 404, 410];
/** The rendition is not there, or lags too far behind. */
const GONE = [404, 410];
const UNDECODABLE =
  'This browser cannot decode this camera’s X video. Try Safari, or Chrome or Edge on a machine that decodes it in hardware; or let the camera send H.264.';

const CONFIG = {
  // Started by hand, once the playlist says which position the wanted moment has.
  autoStartLoad: false,
  backBufferLength: 60,
  // A rendition that was away for a moment is tried again; hls.js itself would avoid it for good.
  errorPenaltyExpireMs: 30_000,
  // Most viewers sit near their cameras: begin with a good picture, and go down when the line says so.
  abrEwmaDefaultEstimate: 5_000_000,
  // We try again ourselves: with a visible message, and when the server says so.
  manifestLoadPolicy: policy(0),
  playlistLoadPolicy: policy(1),
  fragLoadPolicy: policy(3),
};

function policy(maxNumRetry) {
  const retry = { maxNumRetry, retryDelayMs: 500, maxRetryDelayMs: 4000 };
  return { default: { maxTimeToFirstByteMs: 10_000, maxLoadTimeMs: 20_000, timeoutRetry: retry, errorRetry: retry } };
}

/** Buffers of picture and sound end at different places: less than this ahead of the picture is the end of what there is. */
const SCRAP = 0.2;

/** What one may choose from, from the best down, as people read them. */
const namesOf = ({ levels }) => levels.map(nameOf).reverse();

/** What a segment is packed in, by the end of its name. */
const containerOf = ({ url }) => new URL(url).pathname.split('.').at(-1);
/** A transport stream has no init section, but no word of HLS ends the one that was named before it. */
function forgetMaps(fragments) {
  for (const fragment of fragments) if (containerOf(fragment) === 'ts') fragment.initSegment = null;
}

export class Player {
  #video;
  #tell;
  #hls = null;
  /** Of the segments that `#hls` plays, and the first one of another. */
  #container = null;
  #beyond = null;
  #source = null;
  /** Position at which `#hls` began; -1: near the end of live. */
  #begun = -1;
  #timer = null;
  #failures = 0;
  #still = { position: -1, since: 0 };
  #repaired = 0;
  #quality = '';
  /** The names that may be chosen, as they were told last. */
  #offered = [];

  /** `tell`: { state({kind, text, live, retryAt}), outside(source), ended(moment), skipped(from, to), expired(),
   * qualities(names, chosen), without(name) } */
  constructor(video, tell) {
    this.#video = video;
    this.#tell = tell;
    video.addEventListener('ended', () => tell.ended(this.moment));
    video.addEventListener('error', () => this.#nativeError());
    // The last two also come while it is paused: then one picture is all there is to wait for.
    for (const kind of ['playing', 'loadeddata', 'seeked'])
      video.addEventListener(kind, () => this.#timer || tell.state({ kind: 'playing' }));
    video.addEventListener('waiting', () => this.#crossOver());
    video.addEventListener('seeking', () => this.#beyond && this.#load());
    setInterval(() => this.#watch(), SECOND);
    window.addEventListener('online', () => this.retry());
  }

  get source() {
    return this.#source;
  }

  /** `{kind, url, at?, play?}`; replaces what plays. */
  open(source) {
    this.close();
    this.#source = source;
    this.#still = { position: -1, since: Date.now() };
    this.#tell.state({ kind: 'opening' });
    if (Hls?.isSupported()) this.#openHls(source);
    else if (this.#video.canPlayType('application/vnd.apple.mpegurl')) this.#openNative(source);
    else this.#giveUp('This browser cannot play HLS video.');
  }

  close() {
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#source = null;
    this.#hls?.destroy();
    this.#hls = null;
    this.#container = null;
    this.#beyond = null;
    this.#video.removeAttribute('src');
    this.#video.load();
  }

  /** Wall-clock time of the picture, or null. */
  get moment() {
    if (this.#hls) {
      // All renditions have the same times; the one that takes over may not list this moment yet.
      const lists = [this.#fragments, ...this.#hls.levels.map(({ details }) => details?.fragments ?? [])];
      const moments = lists.map((fragments) => momentAt(fragments, this.#video.currentTime));
      return moments.find((moment) => moment !== null) ?? null;
    }
    const zero = this.#video.getStartDate?.().getTime();
    return zero ? zero + this.#video.currentTime * SECOND : null;
  }

  /** Goes to a moment of the playlist that plays; false when it is not in there. */
  seek(moment) {
    if (!this.#hls || this.#timer) return false;
    const position = positionAt(this.#fragments, moment);
    if (position === null) return false;
    this.#video.currentTime = position;
    this.#still = { position: -1, since: Date.now() };
    return true;
  }

  play() {
    this.#video.play().catch((error) => {
      if (error.name !== 'NotAllowedError') return;
      // Browsers refuse to begin with sound before somebody touched the page.
      if (this.#video.muted) return this.#tell.state({ kind: 'paused' });
      this.#video.muted = true;
      this.play();
    });
  }

  /** At once, when a failure is waiting for its next try. */
  retry() {
    if (this.#timer) this.#reopen();
  }

  /** One rendition by name, or '' for what the line allows. The picture goes on; what is buffered ahead is fetched anew. */
  set quality(name) {
    this.#quality = name;
    if (!this.#hls) return;
    // hls.js takes up no rendition that has come since it began.
    if (this.#offered.includes(name) && this.#level < 0) this.#reopen();
    else this.#hls.nextLevel = this.#level;
  }

  /** Renditions come and go while one watches live, and hls.js reads their list once: another one reads it again. */
  renew() {
    const hls = this.#hls;
    if (!hls || this.#timer || this.#source.kind !== 'live') return;
    const scout = new Hls(CONFIG);
    scout.on(Hls.Events.ERROR, (_, { fatal }) => fatal && scout.destroy());
    scout.once(Hls.Events.MANIFEST_PARSED, () => {
      if (hls === this.#hls) this.#offer(namesOf(scout));
      scout.destroy();
    });
    scout.loadSource(this.#source.url);
  }

  /** Said only when it is news: the menu may be open. */
  #offer(names) {
    if (String(names) === String(this.#offered)) return;
    if (this.#offered.includes(this.#quality) && !names.includes(this.#quality)) this.#tell.without(this.#quality);
    this.#offered = names;
    const chosen = this.#level >= 0 && names.includes(this.#quality);
    // One that was away is back.
    if (chosen) this.#hls.loadLevel = this.#level;
    this.#tell.qualities(names, chosen ? this.#quality : '');
  }

  /** The wanted level; -1: hls.js chooses. A camera that lacks the rendition is shown as the line allows. */
  get #level() {
    return this.#quality ? this.#hls.levels.findIndex((level) => nameOf(level) === this.#quality) : -1;
  }

  get #fragments() {
    return this.#hls?.latestLevelDetails?.fragments ?? [];
  }

  /** Where the picture is; live at its end, unless a moment is named. */
  #reopen(moment) {
    const { kind, at, play } = this.#source;
    const begun = this.#video.currentTime > 0;
    this.open({
      ...this.#source,
      at: moment ?? (kind === 'live' ? undefined : (this.moment ?? at)),
      play: begun ? !this.#video.paused : play,
    });
  }

  #openHls(source) {
    const hls = (this.#hls = new Hls(CONFIG));
    hls.on(Hls.Events.ERROR, (_, data) => hls === this.#hls && this.#hlsError(data));
    hls.on(Hls.Events.LEVEL_UPDATED, (_, { details }) => forgetMaps(details.fragments));
    hls.on(Hls.Events.FRAG_LOADING, (_, { frag }) => hls === this.#hls && this.#packed(frag));
    hls.once(Hls.Events.MANIFEST_PARSED, () => {
      this.#offered = [];
      this.#offer(namesOf(hls));
      hls.loadLevel = this.#level;
      if (source.at === undefined) return this.#begin(source, -1);
      // hls.js loads segments as soon as it may load a media playlist, and that says where the wanted moment is: another
      // one is sent ahead.
      const scout = new Hls(CONFIG);
      scout.on(Hls.Events.ERROR, (_, data) => hls === this.#hls && this.#hlsError(data));
      scout.once(Hls.Events.LEVEL_LOADED, (_, { details }) => {
        scout.destroy();
        if (hls !== this.#hls) return;
        const start = this.#start(details, source);
        if (start === null) this.#tell.outside(source);
        else this.#begin(source, start);
      });
      scout.loadSource(bearings(hls.levels).uri);
    });
    hls.loadSource(source.url);
    hls.attachMedia(this.#video);
  }

  /** hls.js makes its buffers for the container of its first segment, and cannot go over to another (picture and sound
   * have one buffer there, and two here): what lies beyond is played by a new hls.js. */
  #packed(frag) {
    if (frag.sn === 'initSegment') return;
    const container = containerOf(frag);
    this.#container ??= container;
    if (container === this.#container) return;
    this.#beyond = frag;
    // Trap: hls.js is in the middle of loading it, and would go on with what is destroyed here.
    setTimeout(() => {
      if (this.#beyond !== frag) return;
      this.#hls.stopLoad();
      this.#crossOver();
    });
  }

  /** Once all that is buffered has been shown. */
  #crossOver() {
    if (!this.#beyond) return;
    const { currentTime, buffered } = this.#video;
    const ahead = (i) => buffered.start(i) <= currentTime && currentTime + SCRAP < buffered.end(i);
    if ([...Array(buffered.length).keys()].some(ahead)) return;
    const { programDateTime, start } = this.#beyond;
    this.#reopen(programDateTime + Math.max(0, currentTime - start) * SECOND);
  }

  /** Loads what belongs to where the picture is. */
  #load() {
    this.#beyond = null;
    this.#hls.startLoad(this.#video.currentTime);
  }

  #begin(source, start) {
    this.#begun = start;
    this.#hls.startLoad(start);
    if (source.play !== false) this.play();
  }

  #start({ fragments, live }, { kind, at }) {
    const position = positionAt(fragments, at);
    if (position !== null || !fragments.length) return position;
    // A moment that live no longer shows, or not yet.
    if (kind === 'live') return -1;
    if (at < fragments[0].programDateTime) return live ? null : fragments[0].start;
    const last = fragments.at(-1);
    const end = momentAt(fragments, Infinity);
    return at < end + CATALOGUE_LAG ? Math.max(last.start - last.duration, fragments[0].start) : null;
  }

  #hlsError({ fatal, type, details, frag, context, response, networkDetails: xhr, mimeType }) {
    const status = response?.code ?? 0;
    if (status === 401) return this.#tell.expired();
    if (details === Hls.ErrorDetails.LEVEL_LOAD_ERROR && GONE.includes(status) && this.#drop(context?.level, fatal))
      return;
    const refused = frag && status >= 400 && status !== 503;
    if (refused && (fatal || frag.gap)) return this.#skip(frag, fatal);
    if (!fatal) return;
    if (type === Hls.ErrorTypes.NETWORK_ERROR) {
      const text = xhr?.responseType === 'arraybuffer' ? '' : xhr?.responseText;
      return this.#fail(status, sentence(text ?? ''), seconds(xhr?.getResponseHeader?.('retry-after')));
    }
    if (/codec/i.test(details))
      return this.#giveUp(UNDECODABLE.replace('X', /hvc1|hev1/.test(mimeType ?? 'hvc1') ? 'H.265' : mimeType));
    // One repair is worth a try; a second one within seconds would go on for ever.
    if (type !== Hls.ErrorTypes.MEDIA_ERROR || Date.now() - this.#repaired < 10 * SECOND)
      return this.#fail(0, `The video cannot be played (${details}).`);
    this.#repaired = Date.now();
    this.#hls.recoverMediaError();
  }

  /** A rendition that is not there ends no film as long as there are others. hls.js goes over to one of them by itself and
   * avoids this one; where it finds none that suits (it wants the same sound) it has stopped. */
  #drop(index, fatal) {
    const { levels } = this.#hls;
    if (levels.length < 2 || !levels[index]) return false;
    const name = nameOf(levels[index]);
    this.#offer(this.#offered.filter((other) => other !== name));
    if (!fatal) return true;
    // Trap: only now that nothing is under way; what hls.js loads or unpacks knows its level by number.
    this.#hls.removeLevel(index);
    this.#hls.startLoad(this.#video.currentTime || this.#begun);
    return true;
  }

  /** One segment is missing or damaged. In a sliding playlist hls.js steps over it; in a VOD only over what the playlist
   * called EXT-X-GAP, so from now on it has. */
  #skip(frag, fatal) {
    this.#tell.skipped(frag.programDateTime, frag.programDateTime + frag.duration * SECOND);
    if (!fatal) return;
    frag.gap = true;
    frag.tagList.push(['GAP']);
    this.#load();
  }

  #fail(status, said, retryAfter) {
    if (this.#timer) return;
    const live = this.#source.kind === 'live';
    const text =
      said ||
      (live && status >= 404
        ? 'No live picture at the moment.'
        : (MEANING[status] ?? `The server answered ${status}.`));
    if (!live && FINAL.includes(status)) return this.#giveUp(text);
    // Jitter, so that a restarted server does not meet all its viewers at once.
    const backOff = Math.min(2 ** this.#failures++, 30) * (0.75 + Math.random() / 2);
    const wait = Math.min(retryAfter ?? backOff, 60);
    this.#tell.state({ kind: 'failed', text, live, retryAt: Date.now() + wait * SECOND });
    this.#timer = setTimeout(() => this.#reopen(), wait * SECOND);
  }

  /** Trying again cannot help; pressing play does try. */
  #giveUp(text) {
    this.#video.pause();
    this.#tell.state({ kind: 'failed', text });
  }

  /** Once a second: pictures that move end a failure, pictures that stand still begin one. */
  #watch() {
    this.#crossOver();
    const { currentTime, paused, ended } = this.#video;
    if (!this.#source || this.#timer || paused || ended) {
      this.#still = { position: currentTime, since: Date.now() };
      return;
    }
    const { position, since } = this.#still;
    if (currentTime === position) {
      if (Date.now() - since > STUCK) this.#reopen();
      else if (Date.now() - since > STILL) this.#tell.state({ kind: 'waiting' });
      return;
    }
    this.#still = { position: currentTime, since: Date.now() };
    if (position >= 0) this.#failures = 0;
  }

  #openNative(source) {
    const video = this.#video;
    video.src = source.url;
    video.onloadedmetadata = () => {
      const zero = video.getStartDate?.().getTime();
      if (source.at && zero) video.currentTime = Math.max(0, (source.at - zero) / SECOND);
      if (source.play !== false) this.play();
    };
  }

  /** The browser keeps the server's answer to itself: ask once more. */
  async #nativeError() {
    if (this.#hls || !this.#source) return;
    const source = this.#source;
    const response = await fetch(source.url).catch(() => null);
    if (source !== this.#source) return;
    if (response?.status === 401) return this.#tell.expired();
    const text = response && !response.ok ? await response.text() : '';
    this.#fail(response?.status ?? 0, sentence(text), seconds(response?.headers.get('retry-after')));
  }
}
