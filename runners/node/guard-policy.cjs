// Where functions may connect to, read from the list that the firewall is made from too
// (runners/egress/ranges.txt): parses the list, parses an address, judges it.
// After loading, nothing here goes through anything that user code can replace: it calls captured
// functions only, and reads own properties only.
'use strict';

const { Math: { floor }, Uint16Array } = globalThis;
const uncurry = (method) => Function.prototype.call.bind(method);
const charCodeAt = uncurry(String.prototype.charCodeAt);
const indexOf = uncurry(String.prototype.indexOf);
const slice = uncurry(String.prototype.slice);
const toBase = uncurry(Number.prototype.toString);

const DOT = 46;
const COLON = 58;
const BLANK = 32;

/** The number of a dotted IPv4 address, else -1. Leading zeros are not accepted: some read them as octal. */
function parseV4(text) {
  let value = 0;
  let part = -1;
  let dots = 0;
  for (let i = 0; i < text.length; i += 1) {
    const code = charCodeAt(text, i);
    if (code === DOT) {
      if (part < 0 || dots === 3) return -1;
      value = value * 256 + part;
      part = -1;
      dots += 1;
    } else {
      if (code < 48 || code > 57 || part === 0) return -1;
      part = (part < 0 ? 0 : part * 10) + code - 48;
      if (part > 255) return -1;
    }
  }
  return part < 0 || dots !== 3 ? -1 : value * 256 + part;
}

function hexDigit(code) {
  if (code >= 48 && code <= 57) return code - 48;
  const lower = code | 32;
  return lower >= 97 && lower <= 102 ? lower - 87 : -1;
}

/** The eight words of an IPv6 address without a zone, else null. */
function parseV6(text) {
  const words = new Uint16Array(8);
  const end = text.length;
  let count = 0;
  let gap = -1;
  let at = 0;
  if (end >= 2 && charCodeAt(text, 0) === COLON) {
    if (charCodeAt(text, 1) !== COLON) return null;
    gap = 0;
    at = 2;
  }
  while (at < end) {
    if (count === 8) return null;
    const start = at;
    let word = 0;
    for (let digit; at < end && (digit = hexDigit(charCodeAt(text, at))) >= 0; at += 1) word = word * 16 + digit;
    if (at < end && charCodeAt(text, at) === DOT) {
      const tail = parseV4(slice(text, start));
      if (tail < 0 || count > 6) return null;
      words[count] = floor(tail / 65536);
      words[count + 1] = tail % 65536;
      count += 2;
      break;
    }
    if (at === start || at - start > 4) return null;
    words[count] = word;
    count += 1;
    if (at === end) break;
    if (charCodeAt(text, at) !== COLON || at + 1 === end) return null;
    at += 1;
    if (charCodeAt(text, at) === COLON) {
      if (gap >= 0) return null;
      gap = count;
      at += 1;
    }
  }
  if (gap < 0) return count === 8 ? words : null;
  if (count === 8) return null;
  const missing = 8 - count;
  for (let i = 7; i >= gap; i -= 1) words[i] = i - missing >= gap ? words[i - missing] : 0;
  return words;
}

function showV4(value) {
  return `${floor(value / 16777216)}.${floor(value / 65536) % 256}.${floor(value / 256) % 256}.${value % 256}`;
}

/** The usual short form: lower case, the longest run of zeros as `::`. */
function showV6(words) {
  let from = -1;
  let length = 1;
  for (let i = 0; i < 8; i += 1) {
    let run = 0;
    while (i + run < 8 && words[i + run] === 0) run += 1;
    if (run > length) {
      from = i;
      length = run;
    }
  }
  if (from === 0 && length === 5 && words[5] === 0xffff) return `::ffff:${showV4(words[6] * 65536 + words[7])}`;
  let text = '';
  for (let i = 0; i < 8; i += 1) {
    if (i === from) {
      text += '::';
      i += length - 1;
    } else text += `${text === '' || i === from + length ? '' : ':'}${toBase(words[i], 16)}`;
  }
  return text;
}

/** The IPv4 address inside an IPv6 one (mapped, compatible, translated, NAT64, 6to4), else -1. */
function carriedV4(words) {
  const last = words[6] * 65536 + words[7];
  if (words[0] === 0x2002) return words[1] * 65536 + words[2];
  if (words[0] === 0x64 && words[1] === 0xff9b) {
    if (words[2] === 1) return last;
    return words[2] === 0 && words[3] === 0 && words[4] === 0 && words[5] === 0 ? last : -1;
  }
  for (let i = 0; i < 4; i += 1) if (words[i] !== 0) return -1;
  // `::` and `::1` are addresses of their own.
  if (words[4] === 0 && words[5] === 0) return last < 2 ? -1 : last;
  return (words[4] === 0 && words[5] === 0xffff) || (words[4] === 0xffff && words[5] === 0) ? last : -1;
}

function coversV6({ words, bits }, address) {
  for (let i = 0, left = bits; left > 0; i += 1, left -= 16) {
    const ignored = left >= 16 ? 0 : 16 - left;
    if (words[i] >> ignored !== address[i] >> ignored) return false;
  }
  return true;
}

function anyCoversV6(ranges, address) {
  for (let i = 0; i < ranges.length; i += 1) if (coversV6(ranges[i], address)) return true;
  return false;
}

/** A number of at most three digits, else NaN. */
function parseBits(text) {
  let value = text.length > 0 && text.length <= 3 ? 0 : NaN;
  for (let i = 0; i < text.length; i += 1) {
    const code = charCodeAt(text, i);
    value = code >= 48 && code <= 57 ? value * 10 + code - 48 : NaN;
  }
  return value;
}

function parseRange(text) {
  const slash = indexOf(text, '/');
  if (slash < 0) return null;
  const bits = parseBits(slice(text, slash + 1));
  const v4 = parseV4(slice(text, 0, slash));
  const words = v4 < 0 ? parseV6(slice(text, 0, slash)) : null;
  if (words !== null) return bits <= 128 ? { words, bits } : null;
  if (v4 < 0 || !(bits <= 32)) return null;
  const size = 2 ** (32 - bits);
  const low = v4 - (v4 % size);
  return { low, high: low + size - 1 };
}

/** The next word of a line, and where it ends. Without regular expressions, which start slowly. */
function wordAt(line, from) {
  let start = from;
  while (start < line.length && charCodeAt(line, start) <= BLANK) start += 1;
  let end = start;
  while (end < line.length && charCodeAt(line, end) > BLANK) end += 1;
  return { word: slice(line, start, end), end };
}

/**
 * The policy of a list, as a function from the text of an address to `{allowed, address}`, or to
 * null when the text is no address. `address` is the real one: the carried IPv4 address if that is
 * what is denied.
 */
function parsePolicy(list) {
  const deniedV4 = [];
  const deniedV6 = [];
  const allowedV6 = [];
  for (let start = 0; start < list.length;) {
    const found = indexOf(list, '\n', start);
    const end = found < 0 ? list.length : found;
    const line = slice(list, start, end);
    start = end + 1;
    const { word: verb, end: past } = wordAt(line, 0);
    if (verb === '' || verb[0] === '#') continue;
    const range = parseRange(wordAt(line, past).word);
    if (range && verb === 'deny') (range.words ? deniedV6 : deniedV4).push(range);
    else if (range && range.words && verb === 'allow') allowedV6.push(range);
    else throw new Error(`"${line}": neither deny nor, for IPv6, allow of a range`);
  }
  // A file that was cut or emptied must not mean that all of IPv4 is allowed.
  if (deniedV4.length === 0 || allowedV6.length === 0) throw new Error('it names no ranges');

  function deniesV4(value) {
    for (let i = 0; i < deniedV4.length; i += 1) {
      if (value >= deniedV4[i].low && value <= deniedV4[i].high) return true;
    }
    return false;
  }

  return function judge(text) {
    const v4 = parseV4(text);
    if (v4 >= 0) return { allowed: !deniesV4(v4), address: text };
    const zone = indexOf(text, '%');
    const words = parseV6(zone < 0 ? text : slice(text, 0, zone));
    if (words === null) return null;
    const carried = carriedV4(words);
    if (carried >= 0 && deniesV4(carried)) return { allowed: false, address: showV4(carried) };
    return { allowed: anyCoversV6(allowedV6, words) && !anyCoversV6(deniedV6, words), address: showV6(words) };
  };
}

module.exports = { parsePolicy };
