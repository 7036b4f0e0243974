// How answers leave: whole ones with their length, streams in the chunks of HTTP/1.1 (or up to
// the end of the connection for clients of HTTP/1.0).
'use strict';

class Outlet {
  constructor(res) {
    this.res = res;
    this.listener = null;
  }

  get isHead() {
    return this.res.req.method === 'HEAD';
  }

  get isChunked() {
    return this.res.req.httpVersion !== '1.0';
  }

  writeHead({ status, outcome, headers, body }) {
    const flat = [];
    for (const [name, values] of headers) for (const value of values) flat.push(name, value);
    if (outcome) flat.push('x-grid-outcome', outcome);
    if (body) flat.push('content-length', String(body.length));
    else if (this.isChunked) flat.push('transfer-encoding', 'chunked');
    this.res.sendDate = false;
    this.res.writeHead(status, flat);
  }

  /** A whole answer. One without a body is the answer to HEAD for what would be a stream. */
  send(answer) {
    this.writeHead(answer);
    if (answer.body) this.res.end(answer.body);
    else this.res.end();
  }

  /** The head of a stream with its first bytes; resolves when they have left the process. */
  begin(answer, bytes) {
    this.writeHead({ ...answer, body: null });
    if (bytes.length) return this.write(bytes);
    this.res.flushHeaders();
    return Promise.resolve();
  }

  write(bytes) {
    return new Promise((resolve) => { this.res.write(bytes, resolve); });
  }

  /** Calls `listener` when the connection ends; at once when it has. One listener; null for none. */
  onGone(listener) {
    const { socket } = this.res.req;
    if (this.listener) socket.removeListener('close', this.listener);
    this.listener = listener;
    if (!listener) return;
    socket.on('close', listener);
    if (socket.destroyed) listener();
  }

  /** What is left to do for an answer: all of it, the end of a stream, or its breaking off. */
  finish(answer) {
    if (!answer.sent) this.send(answer);
    else if (answer.whole) this.res.end();
    else this.cut();
  }

  /** Ends the connection so that the answer cannot be taken for a whole one. */
  cut() {
    const { socket } = this.res.req;
    // Without chunks only a reset tells that something is missing.
    if (!this.isChunked && typeof socket.resetAndDestroy === 'function') socket.resetAndDestroy();
    else this.res.destroy();
    socket.destroy();
  }
}

module.exports = { Outlet };
