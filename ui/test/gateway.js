// A stand-in for the gateway: same routes, same playlists, same Content-Security-Policy, real media from ffmpeg. It
// pretends that two cameras recorded for 27 hours, each session a loop of one short clip, with known gaps.
// `node test/gateway.js` serves the page for a look by eye (admin / secret).

import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { extname, join } from 'node:path';

const UI = join(import.meta.dirname, '..');
const SEGMENT = 2000;
/** Segments of the clip; a session has as many. */
const LOOP = 30;
/** That of src/gateway/access/guard.rs. */
const CSP =
  "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; worker-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
const TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript',
  '.css': 'text/css',
  '.svg': 'image/svg+xml',
  '.ts': 'video/mp2t',
};
const MINUTE = 60_000;

/** The clip: a minute of moving test picture with sound, cut as the capture pod cuts, in both containers. */
function film(folder, size) {
  const ffmpeg = (line) => execFileSync('ffmpeg', `-v error ${line}`.split(' '));
  const cut = '-f hls -hls_time 2 -hls_list_size 0';
  ffmpeg(
    `-f lavfi -i testsrc2=s=${size}:r=10:d=60 -f lavfi -i sine=d=60 -c:v libx264 -preset ultrafast -pix_fmt yuv420p -g 20 -sc_threshold 0 -c:a aac -ac 1 -shortest ${cut} -hls_segment_type fmp4 -hls_fmp4_init_filename init.mp4 -hls_segment_filename ${folder}/%d.m4s ${folder}/all.m3u8`,
  );
  ffmpeg(
    `-i ${folder}/all.m3u8 -c copy ${cut} -hls_segment_type mpegts -hls_segment_filename ${folder}/%d.ts ${folder}/ts.m3u8`,
  );
}

let folder;

/** An error as the gateway words it. */
export const problem = (status, error, headers = {}) => [
  status,
  { 'content-type': 'application/json', ...headers },
  JSON.stringify({ reason: 'Test', error }),
];

/** One gateway; all of them show the same clip. The first change of session comes `early` ms sooner than in a minute. */
export async function start(port = 0, early = 0) {
  if (!folder) {
    folder = mkdtempSync(join(tmpdir(), 'dsn-ui-'));
    process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
    for (const [name, size] of Object.entries({ source: '320x180', low: '160x90' })) {
      mkdirSync(join(folder, name));
      film(join(folder, name), size);
    }
  }
  const now = Date.now();
  const begin = Math.floor(now / SEGMENT) * SEGMENT - 27 * 60 * MINUTE - early;
  const gap = (ago, minutes, reason, detail) => ({
    from: now - ago * MINUTE,
    to: now - (ago - minutes) * MINUTE,
    reason,
    detail,
  });
  const gateway = {
    /** What a test may change while the page runs. */
    cameras: [
      { namespace: 'demo', name: 'gate', site: 'north yard', state: 'Running', live: true },
      { namespace: 'demo', name: 'hall', site: 'plant 2', state: 'Running', live: true },
      {
        namespace: 'demo',
        name: 'roof',
        site: 'plant 2',
        state: 'Failing',
        live: false,
        message: 'roof: RTSP 401; check Secret "roof-login" key "password"',
      },
    ],
    gaps: [
      gap(400, 25, 'CameraUnreachable', 'no answer from 10.0.0.8:554'),
      gap(190, 4, 'Paused', ''),
      gap(40, 1, 'CaptureDied', 'ffmpeg was killed (signal 9)'),
    ],
    session: null,
    /** Of the cameras only the one at the gate has a ladder. */
    ladder: ['low'],
    /** Live stands still for a while, as it does where capture begins anew. */
    halt: { from: Infinity, to: Infinity },
    /** The DVR playlist ends here: a hole that is still waited for. */
    dvrEnd: Infinity,
    /** `(path, query) => [status, headers, body]` instead of the answer, or nothing. */
    fault: () => null,
    /** Every request, for assertions. */
    asked: [],
  };

  const recorded = (at) => !gateway.gaps.some((g) => at + SEGMENT > g.from && at < g.to);
  const segments = (from, to) => {
    const all = [];
    for (let at = begin + Math.floor(Math.max(from - begin, 0) / SEGMENT) * SEGMENT; at < to; at += SEGMENT)
      if (recorded(at)) all.push(at);
    return all;
  };
  const number = (at) => (at - begin) / SEGMENT;
  const session = (at) => Math.floor(number(at) / LOOP);
  /** The camera in the hall is recorded in both containers by turns, so that each session change is one of container. */
  const isStream = (camera, at) => camera === 'hall' && session(at) % 2 === 0;
  gateway.goesOver = (after, toStream) => {
    let at = begin + Math.ceil((after - begin) / SEGMENT / LOOP) * LOOP * SEGMENT;
    while (isStream('hall', at) !== toStream) at += LOOP * SEGMENT;
    return at;
  };
  const playlist = (list, end, rendition, camera) => {
    const lines = [
      '#EXTM3U',
      '#EXT-X-VERSION:7',
      '#EXT-X-TARGETDURATION:2',
      `#EXT-X-MEDIA-SEQUENCE:${number(list[0])}`,
      `#EXT-X-DISCONTINUITY-SEQUENCE:${session(list[0])}`,
      '#EXT-X-INDEPENDENT-SEGMENTS',
    ];
    if (end) lines.push('#EXT-X-PLAYLIST-TYPE:VOD');
    list.forEach((at, i) => {
      const fresh = i === 0 || session(at) !== session(list[i - 1]) || at !== list[i - 1] + SEGMENT;
      if (i > 0 && fresh) lines.push('#EXT-X-DISCONTINUITY');
      const stream = isStream(camera, at);
      if (fresh && !stream) lines.push(`#EXT-X-MAP:URI="/media/${rendition}/init.mp4"`);
      if (fresh) lines.push(`#EXT-X-PROGRAM-DATE-TIME:${new Date(at).toISOString()}`);
      const kind = stream ? 'ts' : 'm4s';
      lines.push('#EXTINF:2.000000,', `/media/${rendition}/${number(at) % LOOP}.${kind}?at=${at}`);
    });
    if (end) lines.push('#EXT-X-ENDLIST');
    return `${lines.join('\n')}\n`;
  };
  const json = (value) => [200, { 'content-type': 'application/json' }, JSON.stringify(value)];
  const M3U8 = { 'content-type': 'application/vnd.apple.mpegurl' };
  const hls = (list, end, rendition, camera) =>
    list.length
      ? [200, M3U8, playlist(list, end, rendition, camera)]
      : problem(404, 'there is no footage in this range');
  const master = (uri, camera) => {
    const mark = uri.includes('?') ? '&' : '?';
    const lines = ['#EXTM3U', '#EXT-X-VERSION:7', '#EXT-X-INDEPENDENT-SEGMENTS'];
    const variant = (bandwidth, size, address, sound = 'mp4a.40.2') =>
      lines.push(
        `#EXT-X-STREAM-INF:BANDWIDTH=${bandwidth},AVERAGE-BANDWIDTH=${bandwidth},CODECS="avc1.42c00c,${sound}",RESOLUTION=${size},FRAME-RATE=10.000`,
        address,
      );
    variant(400_000, '320x180', uri);
    const ladder = camera === 'gate' ? gateway.ladder : [];
    for (const name of ladder)
      variant(150_000, '160x90', `${uri}${mark}rendition=${name}`, name === 'alien' ? 'mp4a.40.5' : undefined);
    return [200, M3U8, `${lines.join('\n')}\n`];
  };
  const file = (path) => {
    try {
      return [
        200,
        { 'content-type': TYPES[extname(path)] ?? 'video/mp4', 'content-length': statSync(path).size },
        readFileSync(path),
      ];
    } catch {
      return problem(404, 'there is no such file');
    }
  };

  function answer(method, url, cookie, body) {
    const path = url.pathname;
    if (path === '/') return file(join(UI, 'index.html'));
    if (path === '/assets/hls.min.js') return file(join(UI, 'node_modules/hls.js/dist/hls.min.js'));
    if (path.startsWith('/assets/')) return file(join(UI, path.slice('/assets/'.length)));
    if (method === 'POST' && path === '/login') {
      const form = new URLSearchParams(body);
      if (form.get('username') !== 'admin' || form.get('password') !== 'secret')
        return problem(401, 'the user name or the password is wrong');
      gateway.session = crypto.randomUUID();
      return [
        303,
        { location: '/', 'set-cookie': `session=${gateway.session}; HttpOnly; SameSite=Strict; Path=/` },
        '',
      ];
    }
    if (!gateway.session || cookie !== `session=${gateway.session}`) return problem(401, 'log in first');
    const at = Date.now();
    const [, kind, , camera, what] = path.split('/');
    const rendition = url.searchParams.get('rendition') ?? 'source';
    if (path === '/logout') return ((gateway.session = null), [303, { location: '/' }, '']);
    if (path === '/api/me') return json({ user: 'admin', role: 'admin' });
    if (path === '/api/cameras') return json(gateway.cameras);
    if (path.endsWith('/coverage')) {
      const [from, to] = ['from', 'to'].map((key) => Date.parse(url.searchParams.get(key)));
      const iso = (time) => new Date(time).toISOString();
      const edges = [begin, ...gateway.gaps.flatMap((g) => [g.from, g.to]), at - 2 * SEGMENT];
      const spans = [];
      for (let i = 0; i < edges.length; i += 2)
        spans.push({ start: iso(Math.max(edges[i], from)), end: iso(Math.min(edges[i + 1], to)) });
      return json({
        spans: spans.filter((s) => s.end > s.start),
        gaps: gateway.gaps
          .filter((g) => g.to > from && g.from < to)
          .map((g) => ({ ...g, from: iso(g.from), to: iso(g.to) })),
      });
    }
    if (kind === 'hls' && what.endsWith('-master.m3u8'))
      return master(what.replace('-master', '') + url.search, camera);
    if (kind === 'hls' && what === 'live.m3u8' && ![...gateway.ladder, 'source'].includes(rendition))
      return problem(404, 'there is no such rendition');
    if (kind === 'hls' && what === 'live.m3u8') {
      const edge = at > gateway.halt.from && at < gateway.halt.to ? gateway.halt.from : at;
      return hls(segments(edge - 6 * SEGMENT, edge - SEGMENT), false, rendition, camera);
    }
    if (kind === 'hls' && what === 'dvr.m3u8')
      return hls(segments(at - 120 * MINUTE, Math.min(at - 3 * SEGMENT, gateway.dvrEnd)), false, rendition, camera);
    if (kind === 'hls' && what === 'replay.m3u8')
      return hls(
        segments(
          Date.parse(url.searchParams.get('start')),
          Math.min(Date.parse(url.searchParams.get('end')), at - 3 * SEGMENT),
        ),
        true,
        rendition,
        camera,
      );
    if (kind === 'media') {
      // All renditions beside the source are of one film.
      const [name, segment] = path.split('/').slice(-2);
      return file(join(folder, name === 'source' ? name : 'low', segment));
    }
    return problem(404, 'there is no such page');
  }

  const server = createServer(async (request, response) => {
    const url = new URL(request.url, 'http://stand-in');
    gateway.asked.push(`${request.method} ${request.url}`);
    let body = '';
    for await (const part of request) body += part;
    const [status, headers, content] =
      gateway.fault(url.pathname, url.searchParams) ?? answer(request.method, url, request.headers.cookie, body);
    response
      .writeHead(status, { 'content-security-policy': CSP, 'cache-control': 'no-cache', ...headers })
      .end(content);
  });
  await new Promise((done) => server.listen(port, '127.0.0.1', done));
  gateway.url = `http://127.0.0.1:${server.address().port}/`;
  gateway.stop = () => {
    server.closeAllConnections();
    server.close();
  };
  return gateway;
}

if (process.argv[1] === import.meta.filename) console.log((await start(Number(process.argv[2] ?? 8080))).url);
