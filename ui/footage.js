// Where there is footage, where there is none and why, and which playlist shows a moment. No DOM in here.

import { HOUR, MINUTE, SECOND } from './time.js';

/** The server's DVR playlist reaches back two hours; its old end is left alone, it moves while one watches. */
const DVR_REACH = 2 * HOUR - 5 * MINUTE;
/** A moment this young is what live shows. */
const LIVE_EDGE = 15 * SECOND;

const REASONS = {
  CameraUnreachable: 'Camera unreachable',
  Unauthorized: 'Camera refused the login',
  CameraHung: 'Camera stopped sending pictures',
  CaptureDied: 'Capture broke off and restarted',
  InstanceLost: 'Capture was not running',
  Paused: 'Paused',
  Reconfigured: 'Settings changed',
  ClockStep: 'Clock jumped',
  SpoolFull: 'Disk of the capture pod was full',
  SegmentLost: 'Segment lost',
};

/** Why there is no footage; a reason that is newer than this page is at least taken apart. */
export function reasonText({ reason = '', detail = '' }) {
  const words = REASONS[reason] ?? (reason.replace(/(?<=[a-z])(?=[A-Z])/g, ' ') || 'No reason known');
  return detail ? `${words}: ${detail}` : words;
}

/** The answer of `/coverage` in milliseconds, sorted. */
export function coverage(json) {
  const ms = (time) => new Date(time).getTime();
  const sorted = (list) => list.filter((x) => x.to > x.from).sort((a, b) => a.from - b.from);
  return {
    spans: sorted((json.spans ?? []).map((s) => ({ from: ms(s.start), to: ms(s.end) }))),
    gaps: sorted(
      (json.gaps ?? []).map((g) => ({ from: ms(g.from), to: ms(g.to), reason: g.reason, detail: g.detail })),
    ),
  };
}

export const spanAt = ({ spans }, moment) => spans.find((s) => moment >= s.from && moment < s.to);

/** The gap at a moment, give or take `slack` on both sides: on a whole day's bar a short one is no pixel wide. */
export function gapAt({ gaps }, moment, slack = 0) {
  const near = gaps.filter((g) => moment >= g.from - slack && moment < g.to + slack);
  const distance = (g) => Math.max(g.from - moment, moment - g.to, 0);
  return near.sort((a, b) => distance(a) - distance(b))[0];
}

/** The nearest moment that can be shown: itself, else the begin of what follows, else shortly before the very end. */
export function snap(cover, moment) {
  if (spanAt(cover, moment)) return moment;
  const next = cover.spans.find((s) => s.from >= moment);
  if (next) return next.from;
  const last = cover.spans.at(-1);
  return last ? Math.max(last.from, last.to - 5 * SECOND) : null;
}

/** What follows a moment: itself inside a span, else the begin of the next span, else nothing. */
export const following = (cover, moment) =>
  spanAt(cover, moment) ? moment : (cover.spans.find((s) => s.from >= moment)?.from ?? null);

/** Which playlist shows a moment. */
export function source(moment, now) {
  if (moment > now - LIVE_EDGE) return { kind: 'live' };
  if (moment > now - DVR_REACH) return { kind: 'dvr', at: moment };
  return replay(moment, now);
}

/** Asked for in whole UTC hours, so that all viewers share one cached text. */
export function replay(moment, now) {
  const from = Math.floor(moment / HOUR) * HOUR;
  return { kind: 'replay', at: moment, from, to: Math.min(from + 2 * HOUR, now) };
}

/** The wall clock of a position in the playlist. hls.js' own `playingDate` speaks of the fragment that played last, which
 * is another one while a jump is under way. */
export function momentAt(fragments, position) {
  const f = fragments.find((f) => position < f.start + f.duration) ?? fragments.at(-1);
  if (!f || f.programDateTime === null) return null;
  return f.programDateTime + Math.min(Math.max(position - f.start, 0), f.duration) * SECOND;
}

/** The position of a moment; in an outage, where the footage goes on. Nothing before the first and after the last. */
export function positionAt(fragments, moment) {
  if (!fragments.length || moment < fragments[0].programDateTime) return null;
  const f = fragments.find((f) => moment < f.programDateTime + f.duration * SECOND);
  return f ? f.start + Math.max(moment - f.programDateTime, 0) / SECOND : null;
}

/** Name of a rendition, as it stands in the address of its playlist. */
export const nameOf = ({ uri }) => new URL(uri).searchParams.get('rendition') ?? 'source';

/** Which level to take one's bearings from: the source has every segment there is, a rendition may lack some. */
export const bearings = (levels) => levels.find((level) => nameOf(level) === 'source') ?? levels[0];
