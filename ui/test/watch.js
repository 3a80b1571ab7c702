// Watches a camera on the page of a running gateway, as a person would, and prints what was seen as one line of JSON. For
// the end-to-end tests, whose cameras burn their frame number into the picture (images/camera/make-clips).
//
//   node ui/test/watch.js URL PASSWORD '#/namespace/camera[/range/FROM/TO]' SECONDS [QUALITY,QUALITY…] [SCREENSHOT]
//
// Qualities are chosen one after the other, evenly over the time.

import { chromium } from 'playwright-core';
import { Visit } from './visit.js';

const [url, password, hash, seconds, qualities = '', screenshot] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--autoplay-policy=no-user-gesture-required'],
});
try {
  const visit = await Visit.open(browser, { url }, { viewport: { width: 1280, height: 800 } });
  const page = visit.page;
  const asked = [];
  page.on('request', (request) => asked.push(new URL(request.url()).pathname));

  await page.goto(url + hash);
  await page.waitForSelector('#login:not([hidden])');
  const beforeLogin = asked.filter((path) => /^\/(hls|live|media)\//.test(path));
  await visit.signIn(password);
  await visit.plays();
  const watching = page.evaluate(watch, Number(seconds));
  const choices = qualities.split(',').filter(Boolean);
  for (const quality of choices) {
    await page.selectOption('#quality', quality);
    await page.waitForTimeout((Number(seconds) * 1000) / (choices.length + 0.5));
  }
  const seen = await watching;
  if (screenshot) await page.screenshot({ path: screenshot });
  console.log(JSON.stringify({ ...seen, beforeLogin, complaints: visit.complaints }));
} finally {
  await browser.close();
}

/** Every picture that is shown for a while, once it plays smoothly: its number (16 blocks of 32 × 32, white = 1), its height,
 * its time in the media, when it was handed to the screen, and what the page says of it. */
function watch(seconds) {
  const video = document.querySelector('video');
  const [blocks, side] = [16, 32];
  const canvas = new OffscreenCanvas(blocks * side, side);
  const strip = canvas.getContext('2d', { willReadFrequently: true });
  const number = () => {
    // In parts of the picture: a smaller rendition shows the same.
    strip.drawImage(video, 0, 0, video.videoWidth * 4 / 5, video.videoHeight * 4 / 45, 0, 0, blocks * side, side);
    let value = 0;
    for (let block = 0; block < blocks; block++) {
      const { data } = strip.getImageData(block * side + side / 2 - 4, side / 2 - 4, 8, 8);
      let grey = 0;
      for (let i = 0; i < data.length; i += 4) grey += data[i];
      value = value * 2 + (grey / (data.length / 4) > 127 ? 1 : 0);
    }
    return value;
  };
  return new Promise((resolve) => {
    const frames = [];
    const moments = [];
    const heights = [];
    const media = [];
    const times = [];
    // A player that has just begun may lag behind its sound on a busy machine, and catches up.
    let began = performance.now() + 4000;
    const next = (now, { mediaTime, presentationTime, height }) => {
      if (now < began) return video.requestVideoFrameCallback(next);
      if (!frames.length) began = now;
      media.push(mediaTime);
      times.push(presentationTime / 1000);
      frames.push(number());
      heights.push(height);
      // Empty while another quality takes over.
      const { dateTime } = document.querySelector('#clock');
      if (dateTime) moments.push(dateTime);
      if (performance.now() - began < seconds * 1000) return video.requestVideoFrameCallback(next);
      resolve({ frames, heights, moments, media, times, seconds: (performance.now() - began) / 1000 });
    };
    video.requestVideoFrameCallback(next);
  });
}
