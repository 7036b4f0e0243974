// Response streaming as AWS Lambda has it: `awslambda.streamifyResponse`, the stream that such a
// handler writes to, and `awslambda.HttpResponseStream`, which puts status and headers before
// the body: as JSON that ends in eight zero bytes. Some libraries write that prelude themselves.
'use strict';

const { Writable } = require('stream');
const { Failure } = require('./failure.cjs');

// User code may replace what it finds in the global object.
const { parse, stringify } = JSON;

const STREAMING = Symbol.for('aws.lambda.runtime.handler.streaming');
const HIGH_WATER_MARK = Symbol.for('aws.lambda.runtime.handler.streaming.highWaterMark');
const PRELUDE_TYPE = 'application/vnd.awslambda.http-integration-response';
const DELIMITER = Buffer.alloc(8);
const MAX_PRELUDE_BYTES = 65536;

const awslambda = {
  streamifyResponse(handler, options) {
    handler[STREAMING] = 'response';
    if (options && typeof options.highWaterMark === 'number') handler[HIGH_WATER_MARK] = Math.trunc(options.highWaterMark);
    return handler;
  },
  HttpResponseStream: {
    from(stream, prelude) {
      stream.setContentType(PRELUDE_TYPE);
      const text = stringify(prelude);
      stream._onBeforeFirstWrite = (write) => {
        write(text);
        write(new Uint8Array(DELIMITER.length));
      };
      return stream;
    },
  },
};

/** What such a handler writes to. It takes one piece at a time: a write is done when the piece after it is asked for. */
class ResponseStream extends Writable {
  #begun = false;
  #contentType = null;
  #piece = null;
  #done = null;
  #ended = false;
  #returned = true;
  #failed = null;
  #wake = () => {};

  constructor(highWaterMark) {
    super({ highWaterMark });
    // Its errors reach the request by `take`.
    this.on('error', () => {});
  }

  get contentType() {
    return this.#contentType;
  }

  setContentType(type) {
    if (this.#begun) throw new Error('Cannot set content-type, too late.');
    this.#contentType = type;
  }

  #begin() {
    if (this.#begun) return;
    this.#begun = true;
    if (typeof this._onBeforeFirstWrite === 'function') this._onBeforeFirstWrite((piece) => super.write(piece));
  }

  write(piece, ...rest) {
    this.#begin();
    const isPlain = typeof piece === 'string' || ArrayBuffer.isView(piece) || piece === null;
    return super.write(isPlain ? piece : stringify(piece), ...rest);
  }

  end(...args) {
    // With an end alone the prelude still comes.
    if (!this.#begun && !this.destroyed) this.#begin();
    const isPiece = args.length > 0 && typeof args[0] !== 'function' && args[0] !== undefined && args[0] !== null;
    if (isPiece) this.write(args[0], ...args.slice(1, 2).filter((one) => typeof one === 'string'));
    return super.end(...args.filter((one) => typeof one === 'function').slice(0, 1));
  }

  _write(piece, encoding, done) {
    this.#piece = piece;
    this.#done = done;
    this.#wake();
  }

  _final(done) {
    this.#ended = true;
    done();
    this.#wake();
  }

  _destroy(error, done) {
    if (!this.#ended) {
      const reason = error || new Error('the response stream was destroyed before its end');
      const pending = this.#done;
      this.#piece = null;
      this.#done = null;
      if (pending) pending(reason);
      this.fail(reason);
    }
    done(error);
  }

  /** The handler has begun, and there is more to wait for than the end of its stream. */
  hold() {
    this.#returned = false;
  }

  /** The handler's promise is fulfilled. */
  release() {
    this.#returned = true;
    this.#wake();
  }

  fail(thrown) {
    if (!this.#failed) this.#failed = { thrown };
    this.#wake();
  }

  /** The next piece; null when the stream has ended and the handler too. */
  take() {
    if (this.#piece === null) {
      // The piece before is through. The next one may come at once, or wait for us already.
      const done = this.#done;
      this.#done = null;
      if (done) done();
    }
    return new Promise((resolve, reject) => {
      this.#wake = () => {
        const piece = this.#piece;
        if (piece !== null) resolve(piece);
        else if (this.#failed) reject(this.#failed.thrown);
        else if (this.#ended && this.#returned) resolve(null);
        else return;
        this.#piece = null;
        this.#wake = () => {};
      };
      this.#wake();
    });
  }
}

function parsePrelude(bytes) {
  let prelude = null;
  try {
    prelude = parse(bytes.toString());
  } catch {
    // told below
  }
  if (prelude === null || typeof prelude !== 'object' || Array.isArray(prelude)) {
    throw new Failure('invalid_result', 'what comes before the body must be a JSON object with statusCode, headers and cookies');
  }
  const { statusCode = 200, headers, multiValueHeaders, cookies } = prelude;
  return { statusCode, headers, multiValueHeaders, cookies };
}

/** First the response without its body, then the body's pieces. */
async function* pieces(stream) {
  let piece = await stream.take();
  if (stream.contentType !== PRELUDE_TYPE) {
    yield { statusCode: 200, headers: { 'content-type': stream.contentType } };
  } else {
    let bytes = Buffer.alloc(0);
    let end = -1;
    for (; piece !== null; piece = await stream.take()) {
      bytes = Buffer.concat([bytes, piece]);
      end = bytes.indexOf(DELIMITER);
      if (end >= 0 || bytes.length > MAX_PRELUDE_BYTES) break;
    }
    if (end < 0) throw new Failure('invalid_result', 'what comes before the body does not end in eight zero bytes');
    yield parsePrelude(bytes.subarray(0, end));
    const first = bytes.subarray(end + DELIMITER.length);
    piece = first.length ? first : await stream.take();
  }
  for (; piece !== null; piece = await stream.take()) yield piece;
}

/** Calls the handler; the answer is where its pieces come from: `next()` as iterators have it, `close()`. */
function begin({ owner, call }, event, context) {
  const stream = new ResponseStream(call[HIGH_WATER_MARK]);
  const iterator = pieces(stream);
  const returned = call.call(owner, event, stream, context);
  let handled = Promise.resolve();
  if (returned !== null && typeof returned === 'object' && typeof returned.then === 'function') {
    stream.hold();
    handled = Promise.resolve(returned).then(() => stream.release(), (thrown) => stream.fail(thrown));
  }
  return {
    next: () => iterator.next(),
    close() {
      stream.destroy(new Error('the rest of the response is not wanted'));
      return handled;
    },
  };
}

module.exports = { awslambda, begin };
