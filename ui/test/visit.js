// A browser window at the page, and the words the tests use about it.

import assert from 'node:assert/strict';

const DAY = 24 * 60 * 60_000;
/** The tests look back hours of one day, so it is early afternoon at the page, whenever they run. `Etc/GMT-9` is 9 h east. */
const EAST = 14 - new Date().getUTCHours();
const ZONE = `Etc/GMT${EAST > 0 ? '-' : '+'}${Math.abs(EAST)}`;

export class Visit {
  complaints = [];

  static async open(browser, gateway, options) {
    const visit = new Visit();
    visit.context = await browser.newContext({ timezoneId: ZONE, ...options });
    visit.page = await visit.context.newPage();
    visit.gateway = gateway;
    visit.page.setDefaultTimeout(30_000);
    visit.page.on('pageerror', (error) => visit.complaints.push(error.stack));
    visit.page.on(
      'console',
      (line) => /Content.Security.Policy/i.test(line.text()) && visit.complaints.push(line.text()),
    );
    return visit;
  }

  close = () => this.context.close();
  /** Looks ten times a second; at each frame would cost more than the film. */
  until = (what, argument) => this.page.waitForFunction(what, argument, { polling: 100 });
  keep = (name) => process.env.SCREENSHOTS && this.page.screenshot({ path: `${process.env.SCREENSHOTS}/${name}.png` });

  /** A visible text comes. */
  says(selector, words) {
    const there = ([s, w]) =>
      document.querySelector(s).checkVisibility() && document.querySelector(s).textContent.includes(w);
    return this.until(there, [selector, words]);
  }

  async signIn(password = 'secret') {
    await this.page.fill('#username', 'admin');
    await this.page.fill('#password', password);
    await this.page.keyboard.press('Enter');
  }

  async enter(hash = '') {
    await this.page.goto(this.gateway.url + hash);
    await this.signIn();
    await this.page.waitForSelector('#app:not([hidden])');
  }

  /** The page asks for the list of cameras now, not in ten seconds. */
  poll = () => this.page.evaluate(() => document.dispatchEvent(new Event('visibilitychange')));

  /** Pictures move: the position grows by a second. */
  async plays() {
    const from = await this.page.evaluate(() => document.querySelector('video').currentTime);
    await this.until(
      (t) => document.querySelector('video').currentTime > t + 1 && document.querySelector('video').videoWidth > 0,
      from,
    );
  }

  /** Wall-clock time of the picture, as the page says it. */
  shown = async () => Date.parse(await this.page.locator('#clock').getAttribute('datetime'));

  /** The picture of that moment comes and moves. */
  async shows(moment, slack = 8000) {
    await this.until(
      ([m, s]) => Math.abs(Date.parse(document.querySelector('#clock').dateTime) - m) < s,
      [moment, slack],
    );
    await this.plays();
    const shown = await this.shown();
    assert.ok(
      Math.abs(shown - moment) < slack + 4000,
      `shows ${new Date(shown).toISOString()}, not ${new Date(moment).toISOString()}`,
    );
  }

  /** The picture of now comes and moves. */
  async live() {
    await this.until(() => Math.abs(Date.parse(document.querySelector('#clock').dateTime) - Date.now()) < 30_000);
    await this.plays();
    assert.equal(await this.page.getAttribute('#live', 'aria-pressed'), 'true');
  }

  /** Where on the bar a moment of today lies. */
  async onBar(moment) {
    const { x, y, width } = await this.page.locator('#timeline').boundingBox();
    const midnight = await this.page.evaluate(() => new Date().setHours(0, 0, 0, 0));
    return { x: x + ((moment - midnight) / DAY) * width, y: y + 25 };
  }

  /** Value of an `<input type="datetime-local">`. */
  local(moment) {
    return this.page.evaluate(
      (m) => new Date(m - new Date(m).getTimezoneOffset() * 60_000).toISOString().slice(0, 19),
      moment,
    );
  }

  /** The last request for a playlist of this kind. */
  asked(kind) {
    const line = this.gateway.asked.findLast((line) => line.includes(`/${kind}.m3u8`));
    return line && new URL(line.split(' ')[1], this.gateway.url);
  }
}
