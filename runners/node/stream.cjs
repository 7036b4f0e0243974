// A body that is produced while it is sent: where its pieces come from, and the loop that hands
// them to the connection one by one. Loaded with the first of them.
'use strict';

const log = require('./log.cjs');
const { Failure, oneLine, show } = require('./failure.cjs');
const { atMostUntil } = require('./context.cjs');
const { isStream } = require('./result.cjs');

const EMPTY = Buffer.alloc(0);
const GONE = Symbol('the client has left');
/** What has been sent already, and still needs its end; or has to be cut off where it is. */
const SENT = { sent: true, whole: true };
const CUT = { sent: true, whole: false };

// ---- sources: `next()` as iterators have it, `close()` to end it early -------------------

/** Web streams are read without their iterator: that one cannot be ended while it waits. */
function ofWebStream(stream) {
  const reader = stream.getReader();
  return { next: () => reader.read(), close: () => reader.cancel() };
}

function ofIterable(value) {
  const iterator = typeof value[Symbol.asyncIterator] === 'function'
    ? value[Symbol.asyncIterator]()
    : (async function* pieces() { yield* value; }());
  return {
    next: () => iterator.next(),
    close() {
      // A stream of Node's lets go of what it waits for when it is destroyed, and only then.
      if (typeof value.destroy === 'function' && typeof value.on === 'function') {
        value.on('error', () => {});
        value.destroy();
      }
      return typeof iterator.return === 'function' ? iterator.return() : undefined;
    },
  };
}

function open(value) {
  return typeof value.getReader === 'function' ? ofWebStream(value) : ofIterable(value);
}

/** Ends a source early. Its own cleaning up is waited for, but not beyond the request's deadline. */
async function close(source, deadline) {
  try {
    await atMostUntil(deadline, source.close());
  } catch (thrown) {
    log.stack(thrown);
  }
}

/** Ends the stream in a result that is not going to be sent: it may hold a file. */
function discard(result) {
  try {
    const value = result.body;
    if (isStream(value)) Promise.resolve(open(value).close()).catch(() => {});
  } catch {
    // What is wrong with the result is told already.
  }
}

// ---- the loop ------------------------------------------------------------------------------

function toBytes(piece, number) {
  if (typeof piece === 'string') return Buffer.from(piece);
  if (ArrayBuffer.isView(piece)) return Buffer.from(piece.buffer, piece.byteOffset, piece.byteLength);
  const kind = piece === null ? 'null' : typeof piece;
  const type = kind === 'object' ? (piece.constructor && piece.constructor.name) || 'object' : kind;
  throw new Failure('invalid_result', `piece ${number} of the body must be text or bytes, not ${oneLine(String(type), 80)}: ${oneLine(show(piece), 120)}`);
}

/** What the loop waits for, unless something ends the stream before. */
class Waiting {
  constructor() {
    this.broken = null;
    this.reject = () => {};
  }

  interrupt(thrown) {
    if (this.broken) {
      if (thrown !== GONE) log.stack(thrown);
      return;
    }
    this.broken = { thrown };
    this.reject(thrown);
  }

  on(start) {
    return new Promise((resolve, reject) => {
      this.reject = reject;
      if (this.broken) reject(this.broken.thrown);
      else Promise.resolve(start()).then(resolve, reject);
    });
  }
}

/** Pulls pieces and sends them: the answer with its first piece, the others as they come. */
class Sending {
  constructor(answer, settings, outlet) {
    this.answer = answer;
    this.limit = settings.maxResponseBytes;
    this.outlet = outlet;
    this.waiting = new Waiting();
    this.count = 0;
    this.total = 0;
    this.sent = 0;
    this.begun = false;
    // Whether the source waits for us, not we for it.
    this.idle = true;
  }

  /** Whether more pieces are wanted. */
  async take(piece) {
    const { answer } = this;
    if (answer.head) {
      const head = answer.head(piece);
      answer.head = null;
      if (head) {
        Object.assign(answer, { status: head.status, headers: head.headers, bodiless: head.bodiless });
        return !head.bodiless;
      }
    }
    this.count += 1;
    const bytes = toBytes(piece, this.count);
    this.total += bytes.length;
    if (this.total > this.limit) {
      throw new Failure('response_too_large', `the response body has more than the ${this.limit} bytes that are allowed`);
    }
    if (!this.begun) {
      if (!answer.headers.has('content-type')) {
        answer.headers.set('content-type', [typeof piece === 'string' ? 'text/plain; charset=utf-8' : 'application/octet-stream']);
      }
      if (this.outlet.isHead) return false;
      this.begun = true;
      await this.waiting.on(() => this.outlet.begin(answer, bytes));
    } else if (bytes.length) {
      await this.waiting.on(() => this.outlet.write(bytes));
    }
    this.sent = this.total;
    return true;
  }

  /** Whether the source has come to its own end. */
  async drain(source) {
    if (this.answer.bodiless) return false;
    for (;;) {
      this.idle = false;
      const { done, value } = await this.waiting.on(() => source.next());
      this.idle = true;
      if (done) return true;
      if (!(await this.take(value))) return false;
    }
  }
}

/**
 * Sends `answer`, whose body is `answer.stream`. The result is SENT, CUT, or an answer that is
 * still to be sent because there was nothing to stream; it throws while nothing has been sent.
 * An outlet that `keeps` what it is given has sent nothing either. `onInterrupt` is given what ends
 * the stream when something outside of it goes wrong.
 */
async function stream(answer, { settings, request, outlet, onInterrupt }) {
  const sending = new Sending(answer, settings, outlet);
  const { waiting } = sending;
  const source = answer.source || open(answer.stream);
  onInterrupt((thrown) => waiting.interrupt(thrown));
  outlet.onGone(() => waiting.interrupt(GONE));
  try {
    if (!(await sending.drain(source).finally(() => onInterrupt(null)))) {
      await close(source, request.deadline);
      if (!answer.bodiless) return { ...answer, body: null };
    }
    return sending.begun ? SENT : { ...answer, body: EMPTY };
  } catch (thrown) {
    // What the source itself throws is its end.
    if (sending.idle || waiting.broken) {
      const closed = close(source, request.deadline);
      // An error from elsewhere ends the answer without waiting for a source that is still at work.
      if (sending.idle || thrown === GONE) await closed;
    }
    if (thrown === GONE) return CUT;
    if (!sending.begun || outlet.keeps) throw thrown;
    if (thrown instanceof Failure) log.note(`${thrown.kind}: ${thrown.message}`);
    else log.stack(thrown);
    log.note(`The response was cut off after ${sending.sent} bytes.`);
    return CUT;
  } finally {
    outlet.onGone(null);
  }
}

module.exports = { discard, stream };
