// What needs no browser: days, footage, which playlist shows a moment, addresses.

import assert from 'node:assert/strict';
import { test } from 'node:test';

process.env.TZ = 'Europe/Berlin';
const { dayOf, duration, fromValue, HOUR, MINUTE, SECOND, shiftDay } = await import('../time.js');
const { bearings, coverage, following, gapAt, momentAt, positionAt, reasonText, snap, source } = await import('../footage.js');
const { format, parse } = await import('../route.js');
const { seconds, sentence } = await import('../api.js');

const at = Date.parse;

test('a day is the local one, also when the clock changes', () => {
  assert.deepEqual(dayOf(at('2026-03-29T12:00:00Z')), {
    from: at('2026-03-28T23:00:00Z'),
    to: at('2026-03-29T22:00:00Z'),
  });
  const october = dayOf(at('2026-10-25T12:00:00Z'));
  assert.equal(october.to - october.from, 25 * HOUR);
  assert.deepEqual(shiftDay(shiftDay(october, -1), 1), october);
  assert.equal(fromValue('2026-07-01T08:00:05'), at('2026-07-01T06:00:05Z'));
  assert.equal(fromValue('2026-07-01'), at('2026-06-30T22:00:00Z'));
});

test('bearings are taken from the source, whatever its bit rate', () => {
  const level = (query) => ({ uri: `http://dsn.test/hls/n/c/replay.m3u8?from=1${query}` });
  const [low, source] = [level('&rendition=240p'), level('')];
  assert.equal(bearings([low, source]), source);
  assert.equal(bearings([low]), low);
});

test('durations read well', () => {
  const table = [
    [400, 'less than 1 s'],
    [59 * SECOND, '59 s'],
    [200 * SECOND, '3 min 20 s'],
    [HOUR, '1 h'],
    [2 * HOUR + 5 * MINUTE + SECOND, '2 h 5 min'],
  ];
  for (const [ms, text] of table) assert.equal(duration(ms), text);
});

const cover = coverage({
  spans: [
    { start: '2026-01-01T10:00:00Z', end: '2026-01-01T11:00:00Z' },
    { start: '2026-01-01T08:00:00Z', end: '2026-01-01T09:00:00Z' },
  ],
  gaps: [
    { from: '2026-01-01T09:00:00Z', to: '2026-01-01T10:00:00Z', reason: 'CameraUnreachable', detail: 'no answer' },
  ],
});

test('a moment without footage leads to what follows, at the end to the last picture', () => {
  const table = [
    ['08:30', '08:30:00'],
    ['09:30', '10:00:00'],
    ['07:00', '08:00:00'],
    ['12:00', '10:59:55'],
  ];
  for (const [wanted, shown] of table)
    assert.equal(snap(cover, at(`2026-01-01T${wanted}:00Z`)), at(`2026-01-01T${shown}Z`));
  assert.equal(snap(coverage({}), 0), null);
  assert.equal(following(cover, at('2026-01-01T09:00:00Z')), at('2026-01-01T10:00:00Z'));
  assert.equal(following(cover, at('2026-01-01T11:00:00Z')), null);
});

test('a gap is found beside itself and says why', () => {
  const gap = gapAt(cover, at('2026-01-01T08:59:00Z'), 2 * MINUTE);
  assert.equal(reasonText(gap), 'Camera unreachable: no answer');
  assert.equal(gapAt(cover, at('2026-01-01T08:59:00Z')), undefined);
  assert.equal(reasonText({ reason: 'SomethingNewHappened' }), 'Something New Happened');
});

test('live, DVR or replay', () => {
  const now = at('2026-01-01T12:34:56Z');
  assert.equal(source(now - 5 * SECOND, now).kind, 'live');
  assert.equal(source(now - HOUR, now).kind, 'dvr');
  const old = source(at('2026-01-01T03:20:00Z'), now);
  assert.deepEqual(old, {
    kind: 'replay',
    at: at('2026-01-01T03:20:00Z'),
    from: at('2026-01-01T03:00:00Z'),
    to: at('2026-01-01T05:00:00Z'),
  });
});

test('positions and moments are each other’s inverse, outages included', () => {
  const fragments = [0, 4, 8].map((start) => ({
    start,
    duration: 4,
    programDateTime: at('2026-01-01T08:00:00Z') + (start + (start === 8 ? 600 : 0)) * SECOND,
  }));
  for (const position of [0, 3.5, 4, 9]) assert.equal(positionAt(fragments, momentAt(fragments, position)), position);
  assert.equal(positionAt(fragments, at('2026-01-01T08:05:00Z')), 8);
  assert.equal(positionAt(fragments, at('2026-01-01T07:59:59Z')), null);
  assert.equal(positionAt(fragments, at('2026-01-01T09:00:00Z')), null);
  assert.equal(momentAt([], 0), null);
});

test('an address says camera and moment, and survives nonsense', () => {
  const moments = [
    {},
    { at: at('2026-01-01T08:00:00Z') },
    { range: { from: at('2026-01-01T08:00:00Z'), to: at('2026-01-01T09:00:00Z') } },
  ];
  for (const moment of moments) {
    const place = { namespace: 'demo', name: 'gate', ...moment };
    assert.deepEqual(parse(format(place)), place);
  }
  for (const hash of ['', '#', '#/', '#/demo', '#//x']) assert.deepEqual(parse(hash), {});
  for (const hash of ['#/a/%', '#/a/b/at/never', '#/a/b/range/2026-01-02/2026-01-01'])
    assert.equal(parse(hash).namespace, 'a');
});

test('the server’s sentence is shown, a proxy’s page is not', () => {
  assert.equal(sentence('{"reason":"Away","error":"the camera is away"}'), 'The camera is away.');
  for (const body of ['', 'null', '{}', '{"error":""}']) assert.equal(sentence(body), '');
  assert.equal(sentence('<html>502</html>'), '');
  assert.equal(seconds('5'), 5);
  assert.equal(seconds('Wed, 21 Oct 2026 07:28:00 GMT'), null);
  assert.equal(seconds(null), null);
});
