// What the page asks the server for. Addresses are relative, so the page also works behind a path prefix.

import { coverage } from './footage.js';
import { utc } from './time.js';

/** The session has ended, or never began. */
export class Expired extends Error {}

/** Anything else that did not work; `status` is 0 when the server did not answer at all. */
export class Failed extends Error {
  constructor(status, sentence, retryAfter) {
    super(sentence || `The server answered ${status}.`);
    Object.assign(this, { status, retryAfter });
  }
}

async function request(path, options = {}) {
  const response = await fetch(path, { cache: 'no-store', ...options }).catch(() => {
    throw new Failed(0, 'The server does not answer.');
  });
  // The server answers a login with a redirect to the page: there is no need to load it once more.
  if (response.ok || response.type === 'opaqueredirect') return response;
  if (response.status === 401) throw new Expired();
  throw new Failed(
    response.status,
    sentence(await response.text().catch(() => '')),
    seconds(response.headers.get('retry-after')),
  );
}

const json = async (path) => (await request(path)).json();
const post = (path, body) => request(path, { method: 'POST', body, redirect: 'manual' });
const folder = ({ namespace, name }) => `${encodeURIComponent(namespace)}/${encodeURIComponent(name)}`;

export const me = () => json('api/me');
export const login = (username, password) => post('login', new URLSearchParams({ username, password }));
export const logout = () => post('logout');
export const cameras = () => json('api/cameras');

export async function footage(camera, { from, to }) {
  return coverage(await json(`api/cameras/${folder(camera)}/coverage?from=${utc(from)}&to=${utc(to)}`));
}

export function playlist(camera, { kind, from, to }) {
  const range = kind === 'replay' ? `?start=${utc(from)}&end=${utc(to)}` : '';
  return new URL(`hls/${folder(camera)}/${kind}-master.m3u8${range}`, document.baseURI).href;
}

/** The sentence in an error's body; a proxy's HTML page has none. */
export function sentence(body) {
  try {
    const { error } = JSON.parse(body);
    return `${error[0].toUpperCase()}${error.slice(1)}${/[.!?]$/.test(error) ? '' : '.'}`;
  } catch {
    return '';
  }
}

/** `Retry-After` in seconds; the form with a date is left to our own back-off. */
export const seconds = (header) => (/^\d+$/.test(header ?? '') ? Number(header) : null);
