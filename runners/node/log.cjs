// The function's log: the marker lines around what a request writes, on each standard stream,
// and the knowledge whether a stream stands inside a line that somebody did not end.
// A stream to which a request writes nothing gets no markers: each line costs the engine more
// time than a small request costs everybody else.
'use strict';

const fs = require('fs');
const { inspect } = require('util');
const { hide, hideChunk } = require('./secrets.cjs');

class Tracked {
  constructor(stream, fd) {
    this.stream = stream;
    this.fd = fd;
    this.open = false;
    this.marked = false;
    this.write = stream.write.bind(stream);
    stream.on('error', () => {});
    stream.write = (given, ...rest) => {
      const chunk = hideChunk(given, rest[0]);
      if (chunk && chunk.length) {
        this.mark();
        const last = chunk[chunk.length - 1];
        this.open = last !== '\n' && last !== 10;
      }
      return this.write(chunk, ...rest);
    };
  }

  /** Before the first output of a request: from here on it is that request's. */
  mark() {
    if (running === null || this.marked) return;
    this.marked = true;
    this.line(`\x1eGRID START ${running}`);
  }

  /** After a request that has written something. */
  unmark(id) {
    if (!this.marked) return;
    this.marked = false;
    this.line(`\x1eGRID END ${id}`);
  }

  line(text) {
    const whole = `${this.open ? '\n' : ''}${text}\n`;
    this.open = false;
    try {
      if (this.stream.writable) this.write(whole);
      else fs.writeSync(this.fd, whole);
    } catch {
      // Nobody reads the log; the answer matters more.
    }
  }

  /** Resolves when everything written so far has left the process. */
  flushed() {
    if (!this.stream.writable || this.stream.writableLength === 0) return null;
    return new Promise((resolve) => this.write('', resolve));
  }
}

const streams = [];
let running = null;

/** Takes hold of the streams; called before any user code runs. */
function open() {
  streams.push(new Tracked(process.stdout, 1), new Tracked(process.stderr, 2));
}

function start(id) {
  running = id;
}

/** Ends the request's part of the log; returns a promise only when output is still queued. */
function end() {
  if (running === null) return null;
  const id = running;
  running = null;
  for (const stream of streams) stream.unmark(id);
  const waits = streams.map((stream) => stream.flushed()).filter(Boolean);
  return waits.length ? Promise.all(waits) : null;
}

/** A line of the runner itself on standard error. */
function note(text) {
  streams[1].mark();
  streams[1].line(hide(text));
}

/** A thrown value with its stack, without the runner's own frames. */
function stackText(thrown) {
  let text;
  try {
    text = typeof thrown === 'string' ? thrown : inspect(thrown);
  } catch {
    text = 'an error that cannot be shown';
  }
  const own = `${__dirname}/`;
  return text.split('\n').filter((line) => !(/^\s+at /.test(line) && line.includes(own) && /\.cjs:/.test(line))).join('\n');
}

function stack(thrown) {
  note(stackText(thrown));
}

module.exports = { open, start, end, note, stack, stackText };
