// The page in a real browser against a stand-in gateway with real media: what a person sees and does (V4, V5).
// SCREENSHOTS=folder keeps pictures. CHROMIUM=path takes another browser than Debian's.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { after, before, beforeEach, test } from 'node:test';
import { chromium } from 'playwright-core';
import { start } from './gateway.js';

const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';
const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-background-networking'];
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

let gateway;
let browser;
let context;
let page;
const complaints = [];

before(async () => {
  assert.ok(existsSync(CHROMIUM), `${CHROMIUM} is missing: apt-get install chromium, or name another one in CHROMIUM`);
  [gateway, browser] = await Promise.all([start(), chromium.launch({ executablePath: CHROMIUM, args: FLAGS })]);
});
after(async () => {
  await browser?.close();
  gateway?.stop();
  assert.deepEqual(complaints, [], 'uncaught errors and Content-Security-Policy violations');
});
beforeEach(async () => {
  await context?.close();
  gateway.fault = () => null;
  await open({ viewport: { width: 1280, height: 860 } });
});

async function open(options) {
  context = await browser.newContext({ timezoneId: 'Asia/Kolkata', ...options });
  page = await context.newPage();
  page.setDefaultTimeout(8000);
  page.on('pageerror', (error) => complaints.push(error.stack));
  page.on('console', (line) => /Content.Security.Policy/i.test(line.text()) && complaints.push(line.text()));
}

const text = (selector) => page.locator(selector).innerText();
const until = (what, ...args) => page.waitForFunction(what, ...args);
const says = (selector, words) => until(([s, w]) => document.querySelector(s).checkVisibility() && document.querySelector(s).textContent.includes(w), [selector, words]);
const keep = (name) => process.env.SCREENSHOTS && page.screenshot({ path: `${process.env.SCREENSHOTS}/${name}.png` });

async function signIn(password = 'secret') {
  await page.fill('#username', 'admin');
  await page.fill('#password', password);
  await page.keyboard.press('Enter');
}

async function enter(hash = '') {
  await page.goto(gateway.url + hash);
  await signIn();
  await page.waitForSelector('#app:not([hidden])');
}

/** Pictures move: the position grows by a second. */
async function plays() {
  const from = await page.evaluate(() => document.querySelector('video').currentTime);
  await until((t) => document.querySelector('video').currentTime > t + 1 && document.querySelector('video').videoWidth > 0, from);
}

/** Wall-clock time of the picture, as the page says it. */
const shown = async () => Date.parse(await page.locator('#clock').getAttribute('datetime'));

async function shows(moment, slack = 8000) {
  const near = ([m, s]) => Math.abs(Date.parse(document.querySelector('#clock').dateTime) - m) < s;
  await until(near, [moment, slack]);
  await plays();
  assert.ok(Math.abs((await shown()) - moment) < slack + 4000, `shows ${new Date(await shown()).toISOString()}, not ${new Date(moment).toISOString()}`);
}

/** Where on the bar a moment of today lies. */
async function onBar(moment) {
  const [{ x, y, width }, midnight] = await Promise.all([page.locator('#timeline').boundingBox(), page.evaluate(() => new Date().setHours(0, 0, 0, 0))]);
  return { x: x + ((moment - midnight) / (24 * HOUR)) * width, y: y + 25 };
}

/** The last request for a playlist of this kind, as URL. */
const asked = (kind) => new URL(gateway.asked.findLast((line) => line.includes(`/${kind}.m3u8`)).split(' ')[1], gateway.url);

test('a wrong password is said, the right one opens the cameras', async () => {
  await page.goto(gateway.url);
  await page.waitForSelector('#login:not([hidden])');
  await signIn('wrong');
  await says('#login-error', 'User name or password is wrong.');
  await keep('login');
  await signIn();
  await page.waitForSelector('a.camera');
  assert.deepEqual(await page.locator('a.camera .name').allInnerTexts(), ['gate', 'hall', 'roof']);
  assert.match(await text('a.camera >> nth=2'), /plant 2[^]*No picture[^]*check Secret/);
  await keep('cameras');
});

test('live plays, with the time of the picture', async () => {
  await enter();
  await page.click('a.camera >> nth=0');
  await shows(Date.now() - 8000);
  assert.equal(await page.getAttribute('#live', 'aria-pressed'), 'true');
  await keep('live');
});

test('the bar goes back: DVR for what is recent, replay for what is older, and L is live again', async () => {
  await enter('#/demo/gate');
  await plays();
  const recent = Date.now() - 75 * MINUTE;
  const { x, y } = await onBar(recent);
  await page.mouse.click(x, y);
  await shows(recent, 2 * MINUTE);
  assert.equal(asked('dvr').pathname, '/hls/demo/gate/dvr.m3u8');

  // A drag ends where it is let go.
  const older = Date.now() - 5 * HOUR;
  const end = await onBar(older);
  await page.mouse.move(x, y);
  await page.mouse.down();
  await page.mouse.move(end.x - 30, end.y, { steps: 4 });
  await page.mouse.move(end.x, end.y);
  await page.mouse.up();
  await shows(older, 2 * MINUTE);
  const query = asked('replay').searchParams;
  assert.match(query.get('start'), /:00:00.000Z$/, 'whole hours, in UTC');
  assert.ok(Date.parse(query.get('start')) <= older && older < Date.parse(query.get('end')));
  await keep('replay');

  await page.keyboard.press('l');
  await shows(Date.now() - 8000);
});

test('a gap says why, and playing goes on after it', async () => {
  await enter('#/demo/gate');
  const gap = gateway.gaps[1];
  const { x, y } = await onBar((gap.from + gap.to) / 2);
  await page.waitForSelector('#timeline rect.gap');
  await page.mouse.move(x, y);
  await says('#tip', 'Paused');
  await page.mouse.click(x, y);
  await says('#notice', 'No footage at');
  await shows(gap.to);
  await page.click('#gaps summary');
  await page.locator('#gaps button').last().focus();
  await says('#tip', 'ffmpeg was killed');
  // From before a gap, over it.
  await page.keyboard.press('Enter');
  await shows(gateway.gaps[2].from - 4000);
  await shows(gateway.gaps[2].to, 10_000);
});

test('a range plays from its begin to its end', async () => {
  await enter('#/demo/hall');
  const local = (moment) => page.evaluate((m) => new Date(m - new Date(m).getTimezoneOffset() * 60_000).toISOString().slice(0, 19), moment);
  const from = Math.floor((Date.now() - 4 * HOUR) / 1000) * 1000;
  await page.fill('#from', await local(from));
  await page.fill('#to', await local(from - 1000));
  await page.click('#range button');
  await says('#range-error', 'after the begin');
  await page.fill('#to', await local(from + 5000));
  await page.click('#range button');
  await shows(from + 2000, 4000);
  const query = asked('replay').searchParams;
  assert.deepEqual([Date.parse(query.get('start')), Date.parse(query.get('end'))], [from, from + 5000]);
  await says('#message', 'End of the range');
  await page.keyboard.press(' ');
  await shows(from + 2000, 4000);
});

test('keys play, pause and step; days are turned', async () => {
  await enter('#/demo/gate');
  await plays();
  await page.keyboard.press('Shift+ArrowLeft');
  await shows(Date.now() - 68_000, 12_000);
  await page.keyboard.press(' ');
  await until(() => document.querySelector('video').paused);
  const held = await shown();
  await page.keyboard.press('ArrowLeft');
  await until((m) => Math.abs(Date.parse(document.querySelector('#clock').dateTime) - m) < 1000, held - 10_000);
  assert.ok(await page.evaluate(() => document.querySelector('video').paused), 'a step does not end a pause');
  await page.keyboard.press(' ');
  await plays();

  assert.ok(await page.isDisabled('#next'));
  const today = await page.inputValue('#day');
  await page.click('#previous');
  await until((d) => document.querySelector('#day').value < d && document.querySelectorAll('#timeline rect.footage').length === 1, today);
  // The stand-in recorded from noon yesterday; a click in the morning goes to the first picture.
  const { x, width, y } = await page.locator('#timeline').boundingBox();
  await page.mouse.click(x + width * 0.1, y + 25);
  await says('#notice', 'No footage at');
  await plays();
  await page.click('#next');
  assert.equal(await page.inputValue('#day'), today);
});

test('another camera shows the same moment; the address can be sent on', async () => {
  const moment = Math.floor((Date.now() - 4 * HOUR) / 1000) * 1000;
  await enter(`#/demo/gate/at/${new Date(moment).toISOString()}`);
  await shows(moment);
  await page.click('a.camera >> nth=1');
  await until(() => document.querySelector('#name').textContent === 'hall');
  await shows(moment, 15_000);
  assert.match(page.url(), /#\/demo\/hall\/at\//);
  await page.goBack();
  await until(() => document.querySelector('#name').textContent === 'gate');
});

test('a camera that is away is waited for, with the server’s words', async () => {
  gateway.fault = (path) => (path.endsWith('live.m3u8') ? [503, { 'retry-after': '1' }, '{"error":"The camera sends no pictures."}'] : null);
  await enter('#/demo/roof');
  await says('#message', 'The camera sends no pictures.');
  await says('#message', 'check Secret');
  await says('#message', 'Trying again');
  await keep('away');
  gateway.fault = () => null;
  await plays();
  await page.waitForSelector('#message', { state: 'hidden' });
});

test('a server that is away is waited for', async () => {
  await enter('#/demo/gate');
  await plays();
  gateway.fault = (path) => (path.startsWith('/assets') ? null : [502, {}, '<html>Bad gateway</html>']);
  await page.evaluate(() => document.dispatchEvent(new Event('visibilitychange')));
  await says('#banner', 'The server answered 502.');
  await says('#message', 'Trying again');
  gateway.fault = () => null;
  await page.waitForSelector('#banner', { state: 'hidden' });
  await plays();
});

test('a session that ended leads to the login form, and back to the picture', async () => {
  await enter('#/demo/hall');
  await plays();
  gateway.session = null;
  await says('#login', 'Your session has ended');
  await signIn();
  await plays();
  assert.equal(await text('#name'), 'hall');
  await page.click('#logout');
  await says('#login', 'You are signed out.');
});

test('a damaged segment is named and stepped over', async () => {
  const moment = Date.now() - 3.5 * HOUR;
  gateway.fault = (path, query) => {
    const at = Number(query.get('at'));
    return path.startsWith('/media') && at > moment + 4000 && at <= moment + 6000 ? [502, {}, ''] : null;
  };
  await enter(`#/demo/gate/at/${new Date(moment).toISOString()}`);
  await says('#notice', 'is missing or damaged');
  await shows(moment + 8000, 2000);
});

test('without a camera the page says how to get one, and shows it when it comes', async () => {
  const all = gateway.cameras;
  gateway.cameras = [];
  await enter();
  await says('#empty', 'kubectl apply');
  await keep('empty');
  gateway.cameras = all;
  await page.evaluate(() => document.dispatchEvent(new Event('visibilitychange')));
  await page.waitForSelector('a.camera');
  assert.ok(await page.isHidden('#empty'));
});

test('a phone shows everything, and each control has a name', async () => {
  await context.close();
  await open({ viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true, colorScheme: 'dark' });
  await enter('#/demo/gate');
  await plays();
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), 'nothing sticks out');
  const nameless = await page.evaluate(() => [...document.querySelectorAll('button, input, select, [role=slider]')].filter((e) => !(e.ariaLabel || e.textContent.trim() || e.labels?.[0]?.textContent.trim())).map((e) => e.id));
  assert.deepEqual(nameless, []);
  const older = Date.now() - 3 * HOUR;
  const { x, y } = await onBar(older);
  await page.touchscreen.tap(x, y);
  await shows(older, 5 * MINUTE);
  await keep('phone');
});
