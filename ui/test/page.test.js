// The page in a real browser against a stand-in gateway with real media: what a person sees and does (V4, V5).
// SCREENSHOTS=folder keeps pictures. CHROMIUM=path takes another browser than Debian's.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { chromium } from 'playwright-core';
import { problem, start } from './gateway.js';
import { Visit } from './visit.js';

const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';
const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-background-networking'];
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

let browser;
before(async () => {
  assert.ok(existsSync(CHROMIUM), `${CHROMIUM} is missing: apt-get install chromium, or name another one in CHROMIUM`);
  browser = await chromium.launch({ executablePath: CHROMIUM, args: FLAGS });
});
after(() => browser?.close());

/** A test with a gateway and a browser window of its own: they mostly wait for pictures, so they wait together. */
function story(name, run, { early, ...options } = {}) {
  test(name, { timeout: 120_000 }, async () => {
    const gateway = await start(0, early);
    const visit = await Visit.open(browser, gateway, { viewport: { width: 1024, height: 800 }, ...options });
    try {
      await run(visit, visit.page, gateway);
      assert.deepEqual(visit.complaints, [], 'uncaught errors and Content-Security-Policy violations');
    } finally {
      await visit.close();
      gateway.stop();
    }
  });
}

describe('the page', { concurrency: 4 }, () => {
  story('a wrong password is said, the right one opens the cameras', async (visit, page, gateway) => {
    await page.goto(gateway.url);
    await page.waitForSelector('#login:not([hidden])');
    await visit.signIn('wrong');
    await visit.says('#login-error', 'User name or password is wrong.');
    await visit.keep('login');
    await visit.signIn();
    await page.waitForSelector('a.camera');
    assert.deepEqual(await page.locator('a.camera .name').allInnerTexts(), ['gate', 'hall', 'roof']);
    assert.match(await page.locator('a.camera').last().innerText(), /plant 2[^]*No picture[^]*check Secret/);
    await visit.keep('cameras');
  });

  story('live plays, with the time of the picture', async (visit, page) => {
    await visit.enter();
    await page.click('a.camera >> nth=0');
    await visit.live();
    await visit.keep('live');
  });

  story(
    'the bar goes back: DVR for what is recent, replay for what is older, and L is live again',
    async (visit, page) => {
      await visit.enter('#/demo/gate');
      await visit.plays();
      const recent = Date.now() - 75 * MINUTE;
      const { x, y } = await visit.onBar(recent);
      await page.mouse.click(x, y);
      await visit.shows(recent, 2 * MINUTE);
      assert.equal(visit.asked('dvr').pathname, '/hls/demo/gate/dvr.m3u8');

      // A drag ends where it is let go.
      const older = Date.now() - 5 * HOUR;
      const end = await visit.onBar(older);
      await page.mouse.move(x, y);
      await page.mouse.down();
      await page.mouse.move(end.x - 30, end.y, { steps: 4 });
      await page.mouse.move(end.x, end.y);
      await page.mouse.up();
      await visit.shows(older, 2 * MINUTE);
      const query = visit.asked('replay').searchParams;
      assert.match(query.get('start'), /:00:00.000Z$/, 'whole hours, in UTC');
      assert.ok(Date.parse(query.get('start')) <= older && older < Date.parse(query.get('end')));
      await visit.keep('replay');

      await page.keyboard.press('l');
      await visit.live();
    },
  );

  for (const [what, hash] of [
    ['live', '#/demo/gate'],
    ['replay', `#/demo/gate/at/${new Date(Date.now() - 5 * HOUR).toISOString()}`],
  ])
    story(`another quality goes on where the picture is: ${what}`, async (visit, page, gateway) => {
      await visit.enter(hash);
      await visit.plays();
      assert.deepEqual(await page.locator('#quality option').allInnerTexts(), ['Auto', 'source', 'low']);
      const width = (pixels) => visit.until((w) => document.querySelector('video').videoWidth === w, pixels);
      for (const [name, pixels] of [
        ['source', 320],
        ['low', 160],
        ['source', 320],
      ]) {
        await page.selectOption('#quality', name);
        // Between two looks the picture moves by as much as the clock does: no jump, neither back nor ahead.
        await page.evaluate(() => {
          const [video, looks] = [document.querySelector('video'), (window.looks = [])];
          clearInterval(window.looking);
          window.looking = setInterval(() => looks.push([video.currentTime, performance.now() / 1000]), 50);
        });
        await width(pixels);
        await visit.plays();
        const jumps = await page.evaluate(() =>
          window.looks.slice(1).map(([position, at], i) => {
            const [before, then] = window.looks[i];
            return position - before - Math.max(at - then, 0);
          }),
        );
        const [back, ahead] = [Math.min(...jumps), Math.max(...jumps)];
        // It may wait for a moment; a frame of the clip lasts 0.1 s.
        assert.ok(back > -3 && ahead < 0.3, `${name}: ${back} … ${ahead}`);
      }
      assert.ok(gateway.asked.some((line) => line.includes('/media/low/')));
      await visit.keep(`quality-${what}`);
    });

  const choices = (page) => page.locator('#quality option').allInnerTexts();

  // hls.js goes over by itself only to what sounds the same.
  for (const name of ['low', 'alien'])
    story(`a rendition that has nothing of a time does not end the film: ${name}`, async (visit, page, gateway) => {
      gateway.ladder = [name];
      gateway.fault = (path, query) =>
        path.endsWith('replay.m3u8') && query.has('rendition') ? problem(404, 'nothing of it is there') : null;
      await page.addInitScript((wanted) => localStorage.setItem('dsn.quality', wanted), name);
      const older = Date.now() - 5 * HOUR;
      await visit.enter(`#/demo/gate/at/${new Date(older).toISOString()}`);
      await visit.shows(older);
      await visit.says('#notice', `There is no picture “${name}” here.`);
      assert.deepEqual(await choices(page), ['Auto', 'source']);
    });

  story('a live rendition that is renamed changes over without a halt', async (visit, page, gateway) => {
    await visit.enter('#/demo/gate');
    await visit.plays();
    await page.selectOption('#quality', 'low');
    const width = (pixels) => visit.until((w) => document.querySelector('video').videoWidth === w, pixels);
    await width(160);
    await visit.plays();
    await page.evaluate(() => {
      const looks = (window.looks = []);
      setInterval(() => looks.push(document.querySelector('video').currentTime), 1000);
    });
    gateway.ladder = ['small'];
    await visit.says('#notice', 'There is no picture “low” here.');
    await width(320);
    await visit.plays();
    const held = await page.evaluate(() => window.looks.slice(1).filter((at, i) => at === window.looks[i]).length);
    assert.ok(held <= 1, `it stood still for ${held} s`);
    await visit.until(() => document.querySelector('#quality').textContent === 'Autosourcesmall');
    await page.selectOption('#quality', 'small');
    await width(160);
    await visit.live();
  });

  story('a camera without a ladder has no menu of qualities', async (visit, page) => {
    await visit.enter('#/demo/hall');
    await visit.plays();
    assert.equal(await page.locator('#quality').isVisible(), false);
  });

  for (const [what, toStream] of [
    ['MP4 to a transport stream', true],
    ['a transport stream to MP4', false],
  ])
    story(`playing goes on where the recording goes over from ${what}`, async (visit, page, gateway) => {
      const change = gateway.goesOver(Date.now() - 5 * HOUR, toStream);
      await visit.enter(`#/demo/hall/at/${new Date(change - 6000).toISOString()}`);
      await visit.shows(change - 4000, 3000);
      await visit.shows(change + 5000, 3000);
      await page.keyboard.press('ArrowLeft');
      await visit.shows(change - 4000, 4000);
      const kinds = gateway.asked.filter((line) => line.includes('?at=')).map((line) => /\.(m4s|ts)\?/.exec(line)[1]);
      assert.deepEqual([...new Set(kinds)], toStream ? ['m4s', 'ts'] : ['ts', 'm4s']);
    });

  for (const [what, toStream] of [
    ['MP4', false],
    ['a transport stream', true],
  ])
    story(
      `live goes over to ${what} once, and forwards`,
      async (visit, page, gateway) => {
        await visit.enter('#/demo/hall');
        await visit.plays();
        const change = gateway.goesOver(Date.now(), toStream);
        // Then the begin of live still lies before the change when the picture has come to it.
        gateway.halt = { from: change + 4000, to: change + 12_000 };
        await page.evaluate(() => {
          const moments = (window.moments = []);
          const look = () => {
            const { dateTime } = document.querySelector('#clock');
            if (dateTime) moments.push(Date.parse(dateTime));
          };
          setInterval(look, 50);
          document.querySelector('video').addEventListener('loadedmetadata', () => (window.begun = (window.begun ?? 0) + 1));
        });
        // Longer than a look: the change has yet to come.
        const over = (m) => Date.parse(document.querySelector('#clock').dateTime) > m + 8000;
        await page.waitForFunction(over, change, { polling: 100, timeout: 60_000 });
        const moments = await page.evaluate(() => window.moments);
        const steps = moments.slice(1).map((moment, i) => moment - moments[i]);
        assert.ok(moments[0] < change, 'it was watched');
        const [back, ahead] = [Math.min(...steps), Math.max(...steps)];
        assert.ok(back > -300 && ahead < 4500, `${back} … ${ahead} ms`);
        assert.equal(await page.evaluate(() => window.begun), 1);
      },
      { early: toStream ? 95_000 : 35_000 },
    );

  story('what DVR does not hold yet, replay shows', async (visit, page, gateway) => {
    const moment = Date.now() - 30 * MINUTE;
    gateway.dvrEnd = Date.now() - HOUR;
    await visit.enter(`#/demo/gate/at/${new Date(moment).toISOString()}`);
    await visit.shows(moment);
    assert.ok(visit.asked('dvr') && visit.asked('replay'));
  });

  story('a gap says why, and playing goes on after it', async (visit, page, gateway) => {
    await visit.enter('#/demo/gate');
    const gap = gateway.gaps[1];
    const { x, y } = await visit.onBar((gap.from + gap.to) / 2);
    await page.waitForSelector('#timeline rect.gap');
    await page.mouse.move(x, y);
    await visit.says('#tip', 'Paused');
    await page.mouse.click(x, y);
    await visit.says('#notice', 'No footage at');
    await visit.shows(gap.to);
    await page.click('#gaps summary');
    await page.locator('#gaps button').last().focus();
    await visit.says('#tip', 'ffmpeg was killed');
    // From before a gap, over it.
    await page.keyboard.press('Enter');
    await visit.shows(gateway.gaps[2].from - 4000);
    await visit.shows(gateway.gaps[2].to, 10_000);
  });

  story('playing goes on over the end of a playlist', async (visit, page) => {
    await visit.enter(`#/demo/gate/at/${new Date(Date.now() - 5 * HOUR).toISOString()}`);
    await visit.plays();
    const end = Date.parse(visit.asked('replay').searchParams.get('end'));
    await page.evaluate(
      () => (document.querySelector('video').currentTime = document.querySelector('video').duration - 3),
    );
    await visit.shows(end + 4000, 3000);
    assert.ok(Date.parse(visit.asked('replay').searchParams.get('end')) > end);
  });

  story('a range plays from its begin to its end', async (visit, page) => {
    await visit.enter('#/demo/hall');
    const from = Math.floor((Date.now() - 4 * HOUR) / 1000) * 1000;
    await page.fill('#from', await visit.local(from));
    await page.fill('#to', await visit.local(from - 1000));
    await page.click('#range button');
    await visit.says('#range-error', 'after the begin');
    await page.fill('#to', await visit.local(from + 5000));
    await page.click('#range button');
    await visit.shows(from + 2000, 4000);
    const query = visit.asked('replay').searchParams;
    assert.deepEqual([Date.parse(query.get('start')), Date.parse(query.get('end'))], [from, from + 5000]);
    await visit.says('#message', 'End of the range');
    await page.click('#play');
    await visit.shows(from + 2000, 4000);
  });

  story('keys play, pause and step', async (visit, page) => {
    await visit.enter('#/demo/gate');
    await visit.plays();
    await page.keyboard.press('Shift+ArrowLeft');
    await visit.shows(Date.now() - 68_000, 30_000);
    await page.keyboard.press(' ');
    await visit.until(() => document.querySelector('video').paused);
    const held = await visit.shown();
    const near = (m) =>
      Math.abs(Date.parse(document.querySelector('#clock').dateTime) - m) < 1000 &&
      document.querySelector('#message').hidden;
    await page.keyboard.press('ArrowLeft');
    await visit.until(near, held - 10_000);
    for (let i = 0; i < 3; i++) await page.keyboard.press('Shift+ArrowLeft');
    await visit.until(near, held - 190_000);
    assert.ok(await page.evaluate(() => document.querySelector('video').paused), 'a step does not end a pause');
    await page.keyboard.press(' ');
    await visit.shows(held - 189_000);
  });

  story('days are turned, and a click before the first footage goes to it', async (visit, page) => {
    await visit.enter('#/demo/gate');
    await visit.plays();
    assert.ok(await page.isDisabled('#next'));
    const today = await page.inputValue('#day');
    await page.click('#previous');
    // The stand-in recorded from yesterday’s late morning on.
    await visit.until(
      (d) =>
        document.querySelector('#day').value < d && document.querySelectorAll('#timeline rect.footage').length === 1,
      today,
    );
    const { x, width, y } = await page.locator('#timeline').boundingBox();
    await page.mouse.click(x + width * 0.1, y + 25);
    await visit.says('#notice', 'No footage at');
    await visit.plays();
    await page.click('#next');
    assert.equal(await page.inputValue('#day'), today);
    await page.click('#zoom button >> nth=2');
    assert.notEqual(await page.locator('#timeline text').last().textContent(), '24:00');
  });

  story('another camera shows the same moment; the address can be sent on', async (visit, page) => {
    const moment = Math.floor((Date.now() - 4 * HOUR) / 1000) * 1000;
    await visit.enter(`#/demo/gate/at/${new Date(moment).toISOString()}`);
    await visit.shows(moment);
    await page.click('a.camera >> nth=1');
    await visit.says('#name', 'hall');
    await visit.shows(moment, 15_000);
    assert.match(page.url(), /#\/demo\/hall\/at\//);
    await page.goBack();
    await visit.says('#name', 'gate');
  });

  story('a camera that is away is waited for, with the server’s words', async (visit, page, gateway) => {
    gateway.fault = (path) =>
      /live(-master)?\.m3u8$/.test(path) ? problem(503, 'the camera sends no pictures', { 'retry-after': '1' }) : null;
    await visit.enter('#/demo/roof');
    await visit.says('#message', 'The camera sends no pictures.');
    await visit.says('#message', 'check Secret');
    await visit.says('#message', 'Trying again');
    await visit.keep('away');
    gateway.fault = () => null;
    await visit.plays();
    await page.waitForSelector('#message', { state: 'hidden' });
  });

  story('a server that is away is waited for', async (visit, page, gateway) => {
    await visit.enter('#/demo/gate');
    await visit.plays();
    gateway.fault = (path) => (path.startsWith('/assets') ? null : [502, {}, '<html>Bad gateway</html>']);
    await visit.poll();
    await visit.says('#banner', 'The server answered 502.');
    await visit.says('#message', 'Trying again');
    gateway.fault = () => null;
    await page.waitForSelector('#banner', { state: 'hidden' });
    await visit.plays();
  });

  story('a session that ended leads to the login form, and back to the picture', async (visit, page, gateway) => {
    await visit.enter('#/demo/hall');
    await visit.plays();
    gateway.session = null;
    await visit.says('#login', 'Your session has ended');
    await visit.signIn();
    await visit.plays();
    await visit.says('#name', 'hall');
    await page.click('#logout');
    await visit.says('#login', 'You are signed out.');
  });

  story('a damaged segment is named and stepped over', async (visit, page, gateway) => {
    const moment = Date.now() - 3.5 * HOUR;
    gateway.fault = (path, query) => {
      const at = Number(query.get('at'));
      return path.startsWith('/media') && at > moment + 4000 && at <= moment + 6000
        ? problem(502, 'this segment is altered')
        : null;
    };
    await visit.enter(`#/demo/gate/at/${new Date(moment).toISOString()}`);
    await visit.says('#notice', 'is missing or damaged');
    await visit.shows(moment + 8000, 2000);
  });

  story('without a camera the page says how to get one, and shows it when it comes', async (visit, page, gateway) => {
    const all = gateway.cameras;
    gateway.cameras = [];
    await visit.enter();
    await visit.says('#empty', 'kubectl apply');
    await visit.keep('empty');
    gateway.cameras = all;
    await visit.poll();
    await page.waitForSelector('a.camera');
    assert.ok(await page.isHidden('#empty'));
  });

  story('a camera that was removed shows its last footage', async (visit, page, gateway) => {
    const newest = Date.now() - 3 * HOUR;
    gateway.cameras.push({
      namespace: 'demo',
      name: 'shed',
      site: 'hq',
      state: 'Unknown',
      live: false,
      deleted: true,
      newest: new Date(newest).toISOString(),
    });
    await visit.enter('#/demo/shed');
    await visit.shows(newest - MINUTE);
    await visit.says('#state', 'Removed');
  });

  const phone = { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true, colorScheme: 'dark' };
  story(
    'a phone shows everything, and each control has a name',
    async (visit, page) => {
      await visit.enter('#/demo/gate');
      await visit.plays();
      assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), 'nothing sticks out');
      const nameless = await page.evaluate(() =>
        [...document.querySelectorAll('button, input, select, [role=slider]')]
          .filter((e) => !(e.ariaLabel || e.textContent.trim() || e.labels?.[0]?.textContent.trim()))
          .map((e) => e.id),
      );
      assert.deepEqual(nameless, []);
      const older = Date.now() - 3 * HOUR;
      const { x, y } = await visit.onBar(older);
      await page.touchscreen.tap(x, y);
      await visit.shows(older, 5 * MINUTE);
      await visit.keep('phone');
    },
    phone,
  );
});
