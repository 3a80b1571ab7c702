// Moments and days. Moments are milliseconds since the epoch; a day is the viewer's local one, so it may have 23 or 25
// hours. Everything that leaves the page is UTC. No DOM in here.

export const SECOND = 1000;
export const MINUTE = 60 * SECOND;
export const HOUR = 60 * MINUTE;

/** The local day that contains a moment. */
export function dayOf(moment) {
  const d = new Date(moment);
  const midnight = (offset) => new Date(d.getFullYear(), d.getMonth(), d.getDate() + offset).getTime();
  return { from: midnight(0), to: midnight(1) };
}

/** The day `count` days later; by calendar, not by 24 hours. */
export function shiftDay(day, count) {
  const d = new Date(day.from);
  return dayOf(new Date(d.getFullYear(), d.getMonth(), d.getDate() + count, 12).getTime());
}

export const contains = (range, moment) => moment >= range.from && moment < range.to;

/** RFC 3339 in UTC. */
export const utc = (moment) => new Date(moment).toISOString();

const two = (n) => String(n).padStart(2, '0');

/** `14:03:22`, or `14:03`. The same in every locale: it stands beside time inputs and is compared by eye. */
export function clock(moment, seconds = true) {
  const d = new Date(moment);
  return `${two(d.getHours())}:${two(d.getMinutes())}${seconds ? `:${two(d.getSeconds())}` : ''}`;
}

/** Value of an `<input type="date">`. */
export function dateValue(moment) {
  const d = new Date(moment);
  return `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())}`;
}

/** Value of an `<input type="datetime-local">`. */
export const dateTimeValue = (moment) => `${dateValue(moment)}T${clock(moment)}`;

/** Reads either value as local time; `NaN` when there is none. A bare date is UTC to `Date`: give it a time. */
export const fromValue = (text) => new Date(text.includes('T') ? text : `${text}T00:00:00`).getTime();

export const weekday = (moment) =>
  new Intl.DateTimeFormat(undefined, { weekday: 'short', day: 'numeric', month: 'short', year: 'numeric' }).format(
    moment,
  );

/** `3 min 20 s`: two units at most. */
export function duration(ms) {
  const s = Math.round(ms / SECOND);
  if (s < 1) return 'less than 1 s';
  const parts = [
    [Math.floor(s / 3600), 'h'],
    [Math.floor((s % 3600) / 60), 'min'],
    [s % 60, 's'],
  ];
  const first = parts.findIndex(([n]) => n > 0);
  return parts
    .slice(first, first + 2)
    .filter(([n]) => n > 0)
    .map(([n, unit]) => `${n} ${unit}`)
    .join(' ');
}

/** `Europe/Berlin` */
export const zone = () => Intl.DateTimeFormat().resolvedOptions().timeZone;
