// The page: who is signed in, which cameras there are, which one is shown. Each of those is one file beside this one.

import * as api from './api.js';
import { Cameras } from './cameras.js';
import { clock, SECOND } from './time.js';
import { format, parse } from './route.js';
import { Viewer } from './viewer.js';

const $ = (id) => document.getElementById(id);
const POLL = 10 * SECOND;

const cameras = new Cameras();
const viewer = new Viewer(() => signIn('Your session has ended. Sign in again; the picture goes on where it was.'));
let signedIn = false;
let timer = null;
let away = null;

/** The login form instead of everything else. The address stays: after the login it is shown again. */
function signIn(note) {
  clearTimeout(timer);
  signedIn = false;
  viewer.close();
  $('app').hidden = true;
  $('login').hidden = false;
  if (note) $('login-note').textContent = note;
  $($('username').value ? 'password' : 'username').focus();
}

async function login(event) {
  event.preventDefault();
  const [password, button] = [$('password'), event.target.querySelector('button')];
  $('login-error').textContent = '';
  button.disabled = true;
  try {
    await api.login($('username').value, password.value);
    password.value = '';
    await start();
  } catch (error) {
    const wait = error.retryAfter ? ` Try again in ${error.retryAfter} s.` : '';
    $('login-error').textContent =
      error instanceof api.Expired ? 'User name or password is wrong.' : error.message + wait;
    password.select();
  } finally {
    button.disabled = false;
  }
}

/** Asks who we are until the server answers; then the page, or the login form. */
async function start() {
  clearTimeout(timer);
  try {
    const me = await api.me();
    $('user').textContent = [me.user, me.role].filter((x, i, all) => x && all.indexOf(x) === i).join(' · ');
    signedIn = true;
    $('login').hidden = true;
    $('app').hidden = false;
    await poll();
    route();
  } catch (error) {
    if (error instanceof api.Expired) return signIn();
    if (!(error instanceof api.Failed)) throw error;
    lost(error, start);
  }
}

/** The list of cameras, again and again; also the sign of life of the server. */
async function poll() {
  clearTimeout(timer);
  try {
    cameras.set(await api.cameras());
    if (away) viewer.player.retry();
    away = null;
    $('banner').hidden = true;
    if (signedIn) timer = setTimeout(poll, POLL);
    const shown = cameras.find(viewer.camera);
    if (shown) viewer.describe(shown);
  } catch (error) {
    if (error instanceof api.Expired) return signIn('Your session has ended. Sign in again.');
    if (!(error instanceof api.Failed)) throw error;
    lost(error, poll);
  }
}

function lost(error, again) {
  away ??= Date.now();
  $('banner').textContent = `${error.message} (since ${clock(away)}) Trying again…`;
  $('banner').hidden = $('app').hidden = false;
  $('login').hidden = true;
  timer = setTimeout(again, POLL / 3);
}

function route() {
  if (!signedIn) return;
  const wanted = parse(location.hash);
  document.body.classList.toggle('watching', Boolean(wanted.name));
  cameras.mark(wanted.name ? wanted : null);
  document.title = wanted.name ? `${wanted.name} – Cameras` : 'Cameras';
  if (wanted.name) viewer.show(cameras.find(wanted) ?? wanted, wanted);
  else viewer.close();
}

$('login-form').addEventListener('submit', login);
$('logout').addEventListener('click', async () => {
  await api.logout().catch(() => {});
  location.hash = '';
  signIn('You are signed out.');
});
// Another camera at the same moment: what one wants when somebody walks out of the picture.
$('cameras').addEventListener('click', (event) => {
  const link = event.target.closest('a');
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  location.hash = format({ ...parse(link.hash), ...viewer.position });
});
window.addEventListener('hashchange', route);
document.addEventListener('visibilitychange', () => !document.hidden && signedIn && poll());
start();
