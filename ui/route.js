// The part of the address after `#`: which camera, which moment. A moment in it can be sent to a colleague.

import { utc } from './time.js';

/** `#/ns/name`, `#/ns/name/at/T`, `#/ns/name/range/T/T` */
export function parse(hash) {
  const [namespace, name, word, a, b] = hash.replace(/^#\/?/, '').split('/').map(decode);
  if (!namespace || !name) return {};
  const [from, to] = [Date.parse(a), Date.parse(b)];
  if (word === 'at' && from) return { namespace, name, at: from };
  if (word === 'range' && to > from) return { namespace, name, range: { from, to } };
  return { namespace, name };
}

export function format({ namespace, name, at, range }) {
  const camera = `#/${encodeURIComponent(namespace)}/${encodeURIComponent(name)}`;
  if (range) return `${camera}/range/${utc(range.from)}/${utc(range.to)}`;
  return at ? `${camera}/at/${utc(at)}` : camera;
}

// A stray `%` in an address that somebody typed is no reason to show nothing.
function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
