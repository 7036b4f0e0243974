// Values that nobody may read, and what the runner writes without them. A courtesy towards those
// who read logs: code that wants to tell a value can spell it differently.
'use strict';

const MASK = '********';
/** Shorter values are found everywhere by chance. */
const MIN_CHARS = 4;
/** A line of a longer value, such as a key in PEM. */
const MIN_LINE_CHARS = 16;

let texts = [];
let bytes = [];

function remember(values) {
  const whole = values.filter((value) => value.length >= MIN_CHARS);
  const lines = values.flatMap((value) => value.split(/\r?\n/)).map((line) => line.trim());
  const all = new Set([...whole, ...lines.filter((line) => line.length >= MIN_LINE_CHARS)]);
  // One may be part of another.
  texts = [...all].sort((a, b) => b.length - a.length);
  bytes = texts.map((text) => Buffer.from(text).toString('latin1'));
}

function replace(text, values) {
  let clean = text;
  for (const value of values) if (clean.includes(value)) clean = clean.split(value).join(MASK);
  return clean;
}

/** Text without the values. */
function hide(text) {
  return texts.length ? replace(text, texts) : text;
}

/** What is written to a stream, text or bytes, without the values. */
function hideChunk(chunk, encoding) {
  if (!texts.length) return chunk;
  if (typeof chunk === 'string' && (typeof encoding !== 'string' || /^utf-?8$/i.test(encoding))) return hide(chunk);
  if (typeof chunk !== 'string' && !ArrayBuffer.isView(chunk)) return chunk;
  const given = typeof chunk === 'string' ? Buffer.from(chunk, encoding) : Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
  const before = given.toString('latin1');
  const after = replace(before, bytes);
  return after === before ? chunk : Buffer.from(after, 'latin1');
}

module.exports = { hide, hideChunk, remember };
