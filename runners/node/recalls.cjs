// What the edge has called back: requests that it sent ahead of their turn and that must not begin any more.
'use strict';

const path = require('path');
const { openSync, readSync } = require('fs');

const file = path.join(path.dirname(process.env.GRID_SOCKET || '/run/grid/edge.sock'), 'recalls');
const last = Buffer.alloc(8);
let descriptor = null;

/** Whether the request with this number was called back. */
function isCalledBack(turn) {
  try {
    if (descriptor === null) descriptor = openSync(file, 'r');
    return readSync(descriptor, last, 0, 8, 0) === 8 && turn <= Number(last.readBigUInt64LE(0));
  } catch {
    return false; // only the function itself can have brought that about
  }
}

module.exports = { isCalledBack };
